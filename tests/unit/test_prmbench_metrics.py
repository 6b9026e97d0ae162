"""PRMBench's scores, against values by hand and plain counting."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from airls_ray.data.step_files import CORRECT
from airls_ray.evaluation.prm_metrics import (
    ChangedSolutions,
    measure_prmbench,
)


# ---------------------------------------------------------------------------- changed solutions
def changed(solutions: list[tuple[str, int, list[int], list[float]]]) -> ChangedSolutions:
    """Each solution: kind, row of its original (-1), right steps as 0/1, scores."""
    return ChangedSolutions(
        scores=np.array([score for *_, scores in solutions for score in scores]),
        right=np.array([bool(one) for _, _, right, _ in solutions for one in right]),
        offsets=np.cumsum([0, *(len(scores) for *_, scores in solutions)]),
        classification=[kind for kind, *_ in solutions],
        original=np.array([original for _, original, *_ in solutions]),
        is_original=np.array([kind == CORRECT for kind, *_ in solutions]),
        problems=np.arange(len(solutions)),
    )


BY_HAND = changed(
    [
        (CORRECT, -1, [1, 1, 1, 1], [0.9, 0.9, 0.9, 0.2]),  # 3/4 called right
        ("circular", 0, [1, 0, 0, 1], [0.9, 0.1, 0.8, 0.7]),  # TP 2, FP 1, TN 1; 3/4 called right
        ("deception", 0, [1, 1, 0], [0.9, 0.3, 0.4]),  # TP 1, FN 1, TN 1; 1/3 called right
        ("multi_solutions", -1, [1, 1], [0.9, 0.1]),  # TP 1, FN 1
    ]
)


def test_prm_score_by_hand() -> None:
    """All: TP 4, FP 1, TN 2, FN 2, so F1 8/11 of right steps and 4/7 of wrong ones."""
    measured = measure_prmbench(BY_HAND)
    overall = measured["overall"]
    assert overall["f1"] == pytest.approx(8 / 11)
    assert overall["negative_f1"] == pytest.approx(4 / 7)
    assert overall["prm_score"] == pytest.approx((8 / 11 + 4 / 7) / 2)
    assert overall["accuracy"] == pytest.approx(6 / 9)
    assert overall["accuracy_right"] == pytest.approx(4 / 6)
    assert overall["accuracy_wrong"] == pytest.approx(2 / 3)
    assert overall["steps"] == 9  # the original's are not among them
    assert measured["original_accuracy"] == 0.75


def test_kinds_of_error_are_measured_apart() -> None:
    kinds = measure_prmbench(BY_HAND)["kinds"]
    assert set(kinds) == {"circular", "deception", "multi_solutions"}
    assert kinds["circular"]["prm_score"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert kinds["deception"]["prm_score"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_kind_without_wrong_steps_is_scored_by_its_right_ones() -> None:
    several = measure_prmbench(BY_HAND)["kinds"]["multi_solutions"]
    assert several["prm_score"] == several["f1"] == pytest.approx(2 / 3)
    assert math.isnan(several["negative_f1"])
    assert math.isnan(several["first_error_accuracy"])


def test_dimensions_are_means_over_their_kinds() -> None:
    measured = measure_prmbench(BY_HAND)
    assert measured["dimensions"] == {
        "simplicity": measured["kinds"]["circular"]["prm_score"],
        "sensitivity": pytest.approx((2 / 3 + 2 / 3) / 2),
    }


def test_similarity_compares_a_solution_with_the_original_it_was_made_from() -> None:
    measured = measure_prmbench(BY_HAND)
    assert measured["kinds"]["circular"]["similarity"] == 1.0
    assert measured["kinds"]["deception"]["similarity"] == pytest.approx(1 - (3 / 4 - 1 / 3))
    assert math.isnan(measured["kinds"]["multi_solutions"]["similarity"])
    assert measured["overall"]["similarity"] == pytest.approx((1 + 7 / 12) / 2)


def test_first_error_accuracy_asks_for_the_first_wrong_step_alone() -> None:
    kinds = measure_prmbench(BY_HAND)["kinds"]
    assert kinds["circular"]["first_error_accuracy"] == 1.0
    late = changed([("circular", -1, [1, 0, 0], [0.9, 0.8, 0.1]), ("circular", -1, [0], [0.2])])
    assert measure_prmbench(late)["overall"]["first_error_accuracy"] == 0.5


def test_a_scorer_that_calls_all_steps_right_gets_no_negative_f1() -> None:
    blind = replace(BY_HAND, scores=np.ones(len(BY_HAND.scores)))
    overall = measure_prmbench(blind)["overall"]
    assert overall["negative_f1"] == 0.0
    assert overall["prm_score"] == pytest.approx(12 / 15 / 2)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_prmbench_counts_equal_plain_counting(threshold: float) -> None:
    rng = np.random.default_rng(7)
    rows = [
        ("circular", -1, rng.integers(0, 2, n).tolist(), rng.random(n).tolist())
        for n in rng.integers(1, 9, 40)
    ]
    cases = Counter(
        (right, score >= threshold)
        for _, _, labels, scores in rows
        for right, score in zip(labels, scores, strict=True)
    )
    precision = cases[1, True] / (cases[1, True] + cases[0, True])
    recall = cases[1, True] / (cases[1, True] + cases[1, False])
    negative_precision = cases[0, False] / (cases[0, False] + cases[1, False])
    negative_recall = cases[0, False] / (cases[0, False] + cases[0, True])
    overall = measure_prmbench(changed(rows), threshold)["overall"]
    assert overall["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert overall["negative_f1"] == pytest.approx(
        2 * negative_precision * negative_recall / (negative_precision + negative_recall)
    )


def test_a_step_that_scores_the_threshold_is_called_right() -> None:
    """Otherwise than in the benchmark's program, as the module says."""
    overall = measure_prmbench(changed([("circular", -1, [1, 0], [0.5, 0.5])]), draws=2)["overall"]
    assert (overall["accuracy_right"], overall["accuracy_wrong"]) == (1.0, 0.0)
