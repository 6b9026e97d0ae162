"""Risk-coverage curves against plain loops and all orders of equal confidences."""

from __future__ import annotations

from itertools import permutations
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from airls_ray.config.search_section import AbstainConfig
from airls_ray.data.sample_files import Sample
from airls_ray.evaluation.abstention import aurc, measure_abstention, risk_curve
from airls_ray.evaluation.prm_metrics.stored_samples import measure_samples
from airls_ray.search.plots import draw_abstention
from airls_ray.search.summary import summarise
from airls_ray.search.tree import Node, SearchState
from tests.unit.test_search_records import record


def by_hand(confidence: list[float], outcomes: list[float], order: tuple[int, ...]) -> list[float]:
    """Risks of the first n problems in an order of falling confidence."""
    ranked = sorted(order, key=lambda at: -confidence[at])  # stable: equals keep the order's
    return [1 - sum(outcomes[at] for at in ranked[:n]) / n for n in range(1, len(ranked) + 1)]


@pytest.mark.parametrize("seed", range(6))
def test_equal_confidences_count_as_in_the_mean_of_all_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, outcomes = rng.integers(0, 3, 6) / 2, rng.integers(0, 3, 6) / 2
    found = [by_hand(confidence.tolist(), outcomes.tolist(), order) for order in permutations(range(6))]
    np.testing.assert_allclose(risk_curve(confidence, outcomes), np.mean(found, axis=0), atol=1e-12)
    assert aurc(confidence, outcomes) == pytest.approx(np.mean(found))


def test_thousands_of_problems_equal_the_loop() -> None:
    rng = np.random.default_rng(1)
    confidence, outcomes = rng.normal(size=5000), (rng.random(5000) < 0.4).astype(float)
    wanted = by_hand(confidence.tolist(), outcomes.tolist(), tuple(range(5000)))
    np.testing.assert_allclose(risk_curve(confidence, outcomes), wanted, atol=1e-12)


def test_bounds_of_the_area_by_hand() -> None:
    """Three right, one wrong: perfect order 0, 0, 0, 1/4; reversed 1, 1/2, 1/3, 1/4; none 1/4 throughout."""
    outcomes = np.array([1.0, 1.0, 1.0, 0.0])
    assert aurc(np.array([4.0, 3.0, 2.0, 1.0]), outcomes) == pytest.approx(1 / 16)
    assert aurc(np.array([1.0, 2.0, 3.0, 4.0]), outcomes) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert aurc(np.zeros(4), outcomes) == pytest.approx(1 / 4)
    assert isnan(aurc(np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize(("problems", "share", "count"), [(10, "0.3", 3), (7, "0.1", 1), (200, "0.7", 140)])
def test_a_share_is_of_whole_problems(problems: int, share: str, count: int) -> None:
    outcomes = np.random.default_rng(0).random(problems)
    confidence = -np.arange(problems, dtype=float)
    accuracy = measure_abstention(confidence, outcomes)["accuracy"]
    assert accuracy[share] == pytest.approx(outcomes[:count].mean())
    assert accuracy["1.0"] == pytest.approx(outcomes.mean())


def test_no_finished_response_is_the_least_confident() -> None:
    confidence = np.array([-np.inf, 0.5, -3.0])
    assert risk_curve(confidence, np.array([0.0, 1.0, 1.0])).tolist() == pytest.approx([0, 0, 1 / 3])


def test_what_cannot_be_ranked_is_an_error() -> None:
    with pytest.raises(ValueError, match="confidence 1 is nan"):
        risk_curve(np.array([0.0, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match=r"must be \[problems\]"):
        risk_curve(np.zeros(2), np.zeros(3))


def leaves(*pairs: tuple[str | None, float]) -> list[dict[str, object]]:
    return [
        {
            "node": at, "response": [at], "answer": answer, "score": score, "log_score": float(np.log(score)),
            "log_prob": -1.0, "outcome": float(answer == "a"),
        }
        for at, (answer, score) in enumerate(pairs)
    ]  # fmt: skip


RECORDS = [
    record(0, leaves=leaves(("a", 0.9), ("a", 0.2), ("b", 0.1)), chosen=0, answer="a", outcome=1.0),
    record(1, leaves=leaves(("b", 0.8), ("c", 0.2), ("a", 0.1)), chosen=0, answer="b", outcome=0.0),
    record(2, leaves=leaves(("a", 0.3), ("a", 0.2), ("a", 0.1)), chosen=0, answer="a", outcome=1.0),
    record(3, leaves=[], chosen=None, answer=None, outcome=0.0),
]
"""Vote shares 2/3, 1/3, 1, 0 and scores 0.9, 0.8, 0.3, none."""


def test_a_summary_ranks_by_votes_and_by_scores() -> None:
    [row] = summarise(RECORDS)
    by_votes, by_scores = (row["abstention"][name]["aurc"] for name in ("vote_share", "score"))
    assert by_votes == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert by_scores == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert (row["answered"], row["answered_accuracy"]) == (0.75, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("abstain", "answered", "right"),
    [
        ({"vote_share": 0.5}, 0.5, 1.0),
        ({"score": 0.5}, 0.5, 0.5),
        ({"vote_share": 0.5, "score": 0.5}, 0.25, 1.0),
    ],
)
def test_answers_that_are_not_sure_enough_are_not_given(
    abstain: dict[str, float], answered: float, right: float
) -> None:
    [row] = summarise(RECORDS, abstain=AbstainConfig.model_validate(abstain))
    assert (row["answered"], row["answered_accuracy"]) == (answered, right)


def test_each_rule_is_measured_on_the_same_responses() -> None:
    [row] = summarise(RECORDS)
    assert row["rules"]["best"] == 0.5
    assert row["rules"]["majority"] == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw_abstention(tmp_path / "a.png", summarise([*RECORDS, record(0, budget=8)]), "title")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_stored_samples_are_sure_by_votes_and_by_scores() -> None:
    """Votes for the leading answer: 2/3 (right), 1/2 (a tie, one of them right), 1 (wrong)."""
    problems = {
        "p": [Sample("p", "a", 1.0, (0.5,)), Sample("p", "a", 1.0, (0.1,)), Sample("p", "b", 0.0, (0.9,))],
        "q": [Sample("q", "a", 1.0, (0.4, 0.6)), Sample("q", "b", 0.0, (0.2,))],
        "r": [Sample("r", "b", 0.0, (0.3,)), Sample("r", "b", 0.0, ())],
    }
    found = measure_samples(problems)["abstention"]
    assert list(found) == ["majority", "best/last", "best/min", "best/prod", "best/mean"]
    assert found["majority"]["aurc"] == pytest.approx((1 + 1 / 2 + (1 + 0 + 1 / 2) / 3) / 3)
    assert found["best/last"]["aurc"] == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)  # 0.9 wrong, 0.6 right, 0.3
    assert found["best/prod"]["aurc"] == pytest.approx((1 + 1 + 2 / 3) / 3)  # 0.9 wrong, 0.3 wrong, 0.24
    assert list(measure_samples({"p": [Sample("p", None, 1.0, (0.5,))]})["abstention"]) == list(found)[1:]


def test_an_answer_that_is_just_sure_enough_is_given() -> None:
    """Vote shares 2/3, 1/3, 1, 0 and scores 0.9, 0.8, 0.3, none."""
    for abstain, answered in (({"vote_share": 2 / 3}, 0.5), ({"score": 0.8}, 0.5)):
        [row] = summarise(RECORDS, abstain=AbstainConfig.model_validate(abstain))
        assert row["answered"] == answered


def test_a_score_of_just_the_threshold_is_sure_whatever_its_logarithm_rounds_to() -> None:
    state = SearchState(0, nodes=[Node(-1), Node(0, (5, 2), scores=(0.35,), finish="stop")])
    score = state.value(1, "prod")
    assert score < 0.35
    one = record(0, leaves=leaves(("a", score)), chosen=0, answer="a", outcome=1.0)
    [row] = summarise([one], abstain=AbstainConfig(score=0.35))
    assert row["answered"] == 1.0
