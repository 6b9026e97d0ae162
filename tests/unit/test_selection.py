"""Choosing among the stored solutions of each problem, against plain loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import bootstrap

from airls_ray.data.schemas import STORED_ROLLOUTS, rows_to_table
from airls_ray.evaluation.selection import (
    choose_by,
    count_problems,
    measure_controls,
    measure_selection,
    with_intervals,
)

Solution = tuple[str, float, str | None, list[float] | None]


def stored(solutions: list[Solution], ends: list[list[int]] | None = None) -> pa.Table:
    """Rollouts of (problem, outcome, answer, log-probabilities), two tokens each unless `ends` says more."""
    rows: list[tuple[Any, ...]] = []
    for number, (problem, outcome, answer, logprobs) in enumerate(solutions):
        steps = [2] if ends is None else ends[number]
        rows.append((problem, [3], [4] * steps[-1], steps, logprobs, outcome, answer))
    return rows_to_table(rows, STORED_ROLLOUTS)


def many(seed: int = 0) -> tuple[list[Solution], np.ndarray]:
    """Problems with one to five solutions, in mixed order; scores without ties."""
    rng = np.random.default_rng(seed)
    solutions: list[Solution] = []
    for problem in range(30):
        for _ in range(int(rng.integers(1, 6))):
            answer = str(rng.integers(3)) if rng.random() < 0.8 else None
            solutions.append((f"p{problem}", float(rng.random() < 0.4), answer, rng.normal(size=2).tolist()))
    order = rng.permutation(len(solutions))
    return [solutions[at] for at in order], rng.random(len(solutions))


def test_every_choice_is_that_of_a_plain_loop() -> None:
    solutions, scores = many()
    log_probs = np.array([sum(one[3] or []) for one in solutions])
    values = choose_by(stored(solutions), np.log(scores), log_probs)
    wanted: dict[str, list[float]] = {way: [] for way in values}
    for problem in dict.fromkeys(one[0] for one in solutions):
        rows = [row for row, one in enumerate(solutions) if one[0] == problem]
        right = [solutions[row][1] for row in rows]
        wanted["mean"].append(sum(right) / len(right))
        wanted["oracle"].append(max(right))
        wanted["best_of_n"].append(solutions[max(rows, key=lambda row: scores[row])][1])
        wanted["policy_log_prob"].append(solutions[max(rows, key=lambda row: log_probs[row])][1])
        for way, weights in (("majority", np.ones(len(scores))), ("weighted", scores)):
            votes: Counter[str] = Counter()
            for row in rows:
                if solutions[row][2] is not None:
                    votes[str(solutions[row][2])] += float(weights[row])  # type: ignore[assignment]
            tied = [answer for answer, count in votes.items() if count == max(votes.values())]
            means = [np.mean([solutions[row][1] for row in rows if solutions[row][2] == one]) for one in tied]
            wanted[way].append(float(np.mean(means)) if means else 0.0)
    assert set(values) == {"mean", "oracle", "majority", "best_of_n", "weighted", "policy_log_prob"}
    for way, expected in wanted.items():
        assert sorted(values[way]) == pytest.approx(sorted(expected)), way


def test_all_ways_have_the_problems_in_one_order() -> None:
    solutions: list[Solution] = [("a", 1.0, None, None), ("b", 0.0, None, None), ("b", 0.0, None, None)]
    values = choose_by(stored(solutions), np.log([0.1, 0.2, 0.3]))
    assert values["mean"].tolist() == values["oracle"].tolist() == values["best_of_n"].tolist() == [1.0, 0.0]


def test_equal_scores_share_the_choice() -> None:
    solutions: list[Solution] = [("a", 1.0, None, None), ("a", 0.0, None, None), ("a", 0.0, None, None)]
    assert choose_by(stored(solutions), np.log([0.5, 0.5, 0.1]))["best_of_n"].tolist() == [0.5]


def test_without_answers_there_are_no_votes() -> None:
    values = choose_by(stored([("a", 1.0, None, None), ("a", 0.0, None, None)]), np.log([0.1, 0.2]))
    assert set(values) == {"mean", "oracle", "best_of_n"}


def test_an_interval_is_that_of_another_library() -> None:
    values = np.random.default_rng(1).random(200)
    figures = with_intervals({"mean": values}, ("mean", "absent"))
    theirs = bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert figures["mean"] == pytest.approx(values.mean())
    assert (figures["mean_low"], figures["mean_high"]) == pytest.approx((theirs.low, theirs.high), abs=4e-3)
    assert len(figures) == 3


def test_a_solution_is_scored_by_its_steps() -> None:
    """By the least step the second one wins, by the last step the first one."""
    solutions: list[Solution] = [("a", 1.0, None, None), ("a", 0.0, None, None)]
    table = stored(solutions, [[1, 2], [1, 2, 3]])
    scores = np.array([0.1, 0.9, 0.8, 0.7, 0.6])
    by_last, by_min = (measure_selection(table, scores, how) for how in ("last", "min"))
    names = ("best_of_n", "trace_auroc", "length_correlation")
    assert [by_last[name] for name in names] == pytest.approx([1.0, 1.0, -1.0])
    assert [by_min[name] for name in names] == pytest.approx([0.0, 0.0, 1.0])


def test_the_control_is_the_log_probability_of_whole_responses() -> None:
    solutions: list[Solution] = [("a", 1.0, "1", [-1.0, -1.5]), ("a", 0.0, "2", [-0.5, -2.5])]
    assert measure_controls(stored(solutions))["policy_log_prob"] == 1.0  # -2.5 above -3


def test_without_all_log_probabilities_there_is_no_such_control() -> None:
    figures = measure_controls(stored([("a", 1.0, "1", [-1.0, -1.5]), ("a", 0.0, "2", None)]))
    assert "policy_log_prob" not in figures
    assert figures["majority"] == 0.5  # one vote each


def test_problems_are_counted_once() -> None:
    assert (
        count_problems(stored([("a", 1.0, None, None), ("b", 0.0, None, None), ("a", 0.0, None, None)])) == 2
    )


def test_an_outcome_of_one_half_is_wrong() -> None:
    values = choose_by(stored([("p", 0.5, "a", None), ("p", 0.75, "b", None)]), None)
    assert values["mean"].tolist() == [0.5]
