"""AUROC, best of k and trace scores against independent computations."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, pearsonr

from airls_ray.evaluation.ranking import (
    auroc,
    auroc_within,
    best_of_k,
    confidence_interval,
    correlation,
    tied_ranks,
)
from airls_ray.evaluation.steps import aggregate_steps


def test_auroc_equals_the_mann_whitney_statistic() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, 10, 60) / 3.0  # many ties
        labels = rng.random(60) < 0.4
        u = mannwhitneyu(scores[labels], scores[~labels]).statistic
        assert auroc(scores, labels) == pytest.approx(u / (labels.sum() * (~labels).sum()), abs=1e-12)


def test_auroc_by_hand() -> None:
    assert auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert auroc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
    assert auroc(np.array([-np.inf, 0.0]), np.array([False, True])) == 1.0


def test_auroc_within_is_the_mean_over_the_groups_that_have_both_classes() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 12, 150) * 7
        scores, labels = rng.integers(0, 6, 150) / 3.0, rng.random(150) < rng.random(85)[groups]
        each = [auroc(scores[groups == group], labels[groups == group]) for group in np.unique(groups)]
        assert auroc_within(scores, labels, groups) == pytest.approx(np.nanmean(each), abs=1e-12)


def test_a_scorer_that_only_knows_which_problems_are_hard_ranks_by_chance_within_them() -> None:
    groups = np.repeat(["hard", "easy"], 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    scores = np.repeat([0.1, 0.9], 4)
    assert (auroc(scores, labels), auroc_within(scores, labels, groups)) == (0.75, 0.5)


def test_auroc_within_groups_of_one_class_is_nan() -> None:
    assert math.isnan(auroc_within(np.array([1.0, 2.0]), np.array([0, 1]), np.array(["a", "b"])))
    assert math.isnan(auroc_within(np.array([]), np.array([]), np.array([])))


def test_auroc_of_one_class_is_nan() -> None:
    assert math.isnan(auroc(np.array([1.0, 2.0]), np.array([1, 1])))
    assert math.isnan(auroc(np.array([]), np.array([])))


def test_a_score_that_is_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="score 1 is nan"):
        auroc(np.array([1.0, math.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="score 1 is nan"):
        auroc_within(np.array([1.0, math.nan]), np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(ValueError, match="nan"):
        best_of_k(np.array([[1.0, math.nan]]), np.array([[0, 1]]), 1)


def test_correlation_equals_pearson_and_is_nan_for_a_constant() -> None:
    first, second = np.random.default_rng(0).random((2, 50))
    assert correlation(first, second) == pytest.approx(pearsonr(first, second).statistic)
    assert math.isnan(correlation(np.full(50, 0.1), second))
    assert math.isnan(correlation(first, np.full(50, 0.1)))


def brute_force_best_of_k(scores: np.ndarray, correct: np.ndarray, k: int) -> float:
    """Mean over every subset; equal best scores share."""
    values = []
    for subset in combinations(range(len(scores)), k):
        top = max(scores[i] for i in subset)
        tied = [correct[i] for i in subset if scores[i] == top]
        values.append(sum(tied) / len(tied))
    return float(np.mean(values))


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_best_of_k_equals_all_subsets(levels: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, levels, (3, 7)) / levels
        correct = rng.random((3, 7))
        for k in range(1, 8):
            wanted = [brute_force_best_of_k(scores[p], correct[p], k) for p in range(3)]
            np.testing.assert_allclose(best_of_k(scores, correct, k), wanted, atol=1e-12)


def test_log_scores_that_roundings_alone_part_have_one_rank() -> None:
    third = math.log(1 / 3)
    logs = np.array([[third, third * (1 + 3e-16), -9.0], [-math.inf, -math.inf, -1e300], [0.0, -1e-300, 0.0]])
    assert logs[0, 0] != logs[0, 1]
    assert tied_ranks(logs).tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1]]


def test_the_best_by_correctness_is_pass_at_k() -> None:
    for right in range(8):
        correct = np.array([[1] * right + [0] * (7 - right)])
        for k in range(1, 8):
            wanted = 1 - math.comb(7 - right, k) / math.comb(7, k)
            assert best_of_k(correct, correct, k)[0] == pytest.approx(wanted)
            hits = [any(correct[0, list(s)]) for s in combinations(range(7), k)]
            assert wanted == pytest.approx(np.mean(hits))


def test_best_of_all_takes_the_highest_score() -> None:
    assert best_of_k(np.array([[-5.0, -1.0, -3.0]]), np.array([[0, 1, 0]]), 3).tolist() == [1.0]


def test_infinite_scores_are_ranked() -> None:
    assert best_of_k(np.array([[-np.inf, 0.0]]), np.array([[0, 1]]), 2).tolist() == [1.0]


@pytest.mark.parametrize("k", [0, 4])
def test_a_size_out_of_range_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the number of samples"):
        best_of_k(np.zeros((1, 3)), np.zeros((1, 3)), k)


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="must both be"):
        best_of_k(np.zeros((1, 3)), np.zeros((1, 2)), 1)


def test_the_interval_covers_the_mean_and_has_the_normal_width() -> None:
    values = np.random.default_rng(0).random(400)
    low, high = confidence_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert confidence_interval(values) == (low, high)
    assert confidence_interval(values, seed=1) != (low, high)


def test_the_interval_of_nothing_is_nan() -> None:
    assert all(math.isnan(bound) for bound in confidence_interval(np.zeros(0)))


VALUES, OFFSETS = np.array([0.5, 0.2, 0.4, 0.9], dtype=np.float32), np.array([0, 3, 4])


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("last", [0.4, 0.9]),
        ("min", [0.2, 0.9]),
        ("prod", [0.04, 0.9]),
        ("mean", [1.1 / 3, 0.9]),
        ("sum", [1.1, 0.9]),
    ],
)
def test_steps_are_aggregated_by_hand(how: str, wanted: list[float]) -> None:
    got = aggregate_steps(VALUES, OFFSETS, how)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("how", ["min", "prod", "mean", "sum", "last"])
def test_zeros_stay_zeros_and_nothing_is_nan(how: str) -> None:
    got = aggregate_steps(np.array([0.0, 0.0, 0.0, 0.5]), np.array([0, 2, 4]), how)
    assert got[0] == 0.0
    assert (got[1] == 0.0) == (how in ("min", "prod"))


def test_a_long_product_of_float32_scores_does_not_underflow() -> None:
    got = aggregate_steps(np.full(100, 0.1, np.float32), np.array([0, 100]), "prod")
    assert got[0] == pytest.approx(1e-100, rel=1e-4)


def test_no_traces_give_no_scores() -> None:
    assert aggregate_steps(np.zeros(0), np.array([0]), "prod").tolist() == []


@pytest.mark.parametrize("how", ["last", "min", "prod", "mean", "sum"])
def test_a_trace_without_steps_is_an_error_that_names_it(how: str) -> None:
    with pytest.raises(ValueError, match="trace 1 has no steps"):
        aggregate_steps(np.ones(2), np.array([0, 1, 1, 2]), how)


def test_bad_arguments_of_aggregation_are_an_error() -> None:
    with pytest.raises(ValueError, match="number of steps"):
        aggregate_steps(np.ones(3), np.array([0, 2]), "min")
    with pytest.raises(ValueError, match="how must be"):
        aggregate_steps(np.ones(2), np.array([0, 2]), "max")  # type: ignore[arg-type]


def test_the_smallest_numbers_have_a_correlation_too():
    assert correlation(np.array([0.0, 1e-200, 2e-200]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.0)
