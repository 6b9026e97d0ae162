"""Measures of a PRM against values by hand, plain counting, all subsets and scipy."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, pearsonr

from airls_ray.data.step_files import CORRECT, StepRow
from airls_ray.evaluation.prm_metrics import (
    Traces,
    brier_score,
    cross_fitted,
    drift_slope,
    expected_calibration_error,
    flawed_but_right,
    length_correlation,
    lowest_at_last,
    measure_first_errors,
    measure_step_rows,
    partial_rank_correlation,
    reliability_table,
    step_drift,
)
from airls_ray.evaluation.prm_metrics.intervals import bootstrap, group_sums

NAN = math.nan


def traces(
    solutions: list[tuple[str, int, int, list[float]]],
) -> Traces:
    """Each solution: subset, problem, first wrong step, scores."""
    return Traces(
        scores=np.array([score for *_, scores in solutions for score in scores]),
        offsets=np.cumsum([0, *(len(scores) for *_, scores in solutions)]),
        first_error=np.array([first for _, _, first, _ in solutions]),
        subsets=np.array([subset for subset, *_ in solutions]),
        problems=np.array([problem for _, problem, *_ in solutions]),
    )


def ideal(subset: str, problems: int, low: float, high: float) -> list[tuple[str, int, int, list[float]]]:
    """Right and wrong solutions of three steps; a wrong step scores `low`, a right one `high`."""
    return [
        (subset, problem, problem % 3 - 1, [low if step == problem % 3 - 1 else high for step in range(3)])
        for problem in range(problems)
    ]


# ------------------------------------------------------------------------------- first wrong step
TWO_SUBSETS = traces(
    [
        ("a", 0, 1, [0.9, 0.2, 0.9]),  # found
        ("a", 1, 0, [0.9, 0.2]),  # found too late
        ("a", 2, -1, [0.8, 0.5]),  # left alone: 0.5 is not below 0.5
        ("b", 3, 0, [0.1]),  # found
        ("b", 4, -1, [0.4]),  # accused
        ("b", 5, -1, [0.6, 0.7]),  # left alone
    ]
)


def test_first_error_f1_is_by_hand_the_mean_over_subsets_of_harmonic_means() -> None:
    """a: 1/2 of wrong and 1/1 of right, F1 2/3; b: 1/1 and 1/2, F1 2/3 as well; at 0.3: a 2/3, b 1."""
    measured = measure_first_errors(TWO_SUBSETS, 0.3)
    a, b = measured["subsets"]["a"], measured["subsets"]["b"]
    assert (a["rows"], a["wrong"], a["accuracy_wrong"], a["accuracy_right"]) == (3, 2, 0.5, 1.0)
    assert (b["accuracy_wrong"], b["accuracy_right"], b["f1"]) == (1.0, 1.0, 1.0)
    assert measured["mean"]["f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert measure_first_errors(TWO_SUBSETS, 0.5)["mean"]["f1"] == pytest.approx(2 / 3)


def test_a_tuned_threshold_comes_from_the_other_subsets() -> None:
    """The subsets' scores live on different scales: each one's own threshold would be perfect."""
    apart = traces([*ideal("a", 12, 0.1, 0.2), *ideal("b", 12, 0.7, 0.9)])
    _, thresholds = cross_fitted(apart)
    assert thresholds == {"a": pytest.approx(0.8), "b": pytest.approx(0.15)}
    assert measure_first_errors(apart)["mean"]["tuned"]["f1"] == 0.0
    alike = traces([*ideal("a", 12, 0.6, 0.8), *ideal("b", 12, 0.65, 0.9)])
    measured = measure_first_errors(alike)
    assert measured["mean"]["f1"] == 0.0  # nothing scores below 1/2
    assert measured["mean"]["tuned"]["f1"] == 1.0


def test_the_labels_of_a_subset_have_no_part_in_its_threshold() -> None:
    data = traces([*ideal("a", 12, 0.1, 0.2), *ideal("b", 12, 0.7, 0.9)])
    other = replace(data, first_error=np.where(data.subsets == "a", -1, data.first_error))
    assert cross_fitted(data)[1]["a"] == cross_fitted(other)[1]["a"]


def test_a_single_subset_is_tuned_by_halves_of_its_problems() -> None:
    """Scores of odd problems are shifted up, and each half gets the threshold of the other."""
    even, odd = ideal("a", 12, 0.1, 0.2), ideal("a", 12, 0.7, 0.9)
    data = traces(
        [("a", 2 * p, *rest) for _, p, *rest in even] + [("a", 2 * p + 1, *rest) for _, p, *rest in odd]
    )
    tuned = measure_first_errors(data)["subsets"]["a"]["tuned"]
    assert tuned["thresholds"] == pytest.approx([0.8, 0.15])
    assert tuned["f1"] < 0.5
    assert measure_first_errors(traces(even))["subsets"]["a"]["tuned"]["f1"] == 1.0


def test_a_subset_with_right_solutions_alone_has_no_f1() -> None:
    measured = measure_first_errors(traces([("a", 0, -1, [0.9]), ("a", 1, -1, [0.9])]))
    assert math.isnan(measured["subsets"]["a"]["f1"])
    assert math.isnan(measured["mean"]["low"])
    assert measured["subsets"]["a"]["accuracy_right"] == 1.0


def test_the_interval_of_the_f1_has_the_width_of_repeated_experiments() -> None:
    """Accuracies of 0.6 on 300 wrong and 0.8 on 300 right solutions: spread of F1 by simulation."""
    rng = np.random.default_rng(0)
    wrong, right = rng.binomial(300, 0.6, 4000) / 300, rng.binomial(300, 0.8, 4000) / 300
    low, high = np.quantile(2 * wrong * right / (wrong + right), [0.025, 0.975])
    data = traces(
        [("a", n, 0, [0.0 if n % 5 < 3 else 1.0]) for n in range(300)]
        + [("a", 300 + n, -1, [1.0 if n % 5 < 4 else 0.0]) for n in range(300)]
    )
    found = measure_first_errors(data)["subsets"]["a"]
    assert found["f1"] == pytest.approx(2 * 0.6 * 0.8 / 1.4)
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=0.08)


def test_solutions_of_one_problem_are_drawn_together() -> None:
    """Every solution twice adds no knowledge: the interval stays, and would shrink for new problems."""
    once = [("a", n, 0 if n % 2 else -1, [0.3 if n % 3 else 0.7]) for n in range(60)]
    single = measure_first_errors(traces(once))["subsets"]["a"]
    double = measure_first_errors(traces([*once, *once]))["subsets"]["a"]
    fresh = measure_first_errors(traces([*once, *(("a", n + 60, *rest) for _, n, *rest in once)]))
    assert (double["low"], double["high"]) == (single["low"], single["high"])
    narrow = fresh["subsets"]["a"]
    assert narrow["high"] - narrow["low"] < 0.85 * (single["high"] - single["low"])


def test_a_bootstrap_of_a_mean_has_the_normal_width() -> None:
    values = np.random.default_rng(0).random(400)
    sums = group_sums(np.stack([values, np.ones(400)], axis=1), np.arange(400))
    low, high = bootstrap(sums, lambda total: total[..., 0] / total[..., 1])
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


# ------------------------------------------------------------------------------- calibration
SCORES, RIGHT = np.array([0.1, 0.15, 0.9, 1.0, 0.3]), np.array([False, True, True, True, False])


def test_brier_score_by_hand() -> None:
    assert brier_score(SCORES, RIGHT) == pytest.approx((0.01 + 0.7225 + 0.01 + 0 + 0.09) / 5)
    assert math.isnan(brier_score(np.zeros(0), np.zeros(0, dtype=bool)))


def test_the_reliability_table_by_hand() -> None:
    """1.0 belongs to the last bin, 0.1 and 0.3 to the bins that begin there."""
    table = reliability_table(SCORES, RIGHT)
    assert table["count"].tolist() == [0, 2, 0, 1, 0, 0, 0, 0, 0, 2]
    assert table["score"][[1, 3, 9]].tolist() == pytest.approx([0.125, 0.3, 0.95])
    assert table["right"][[1, 3, 9]].tolist() == [0.5, 0.0, 1.0]
    assert math.isnan(table["right"][0])


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error(SCORES, RIGHT) == pytest.approx((2 * 0.375 + 0.3 + 2 * 0.05) / 5)


def test_scores_that_are_probabilities_have_a_small_calibration_error() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    right = rng.random(200_000) < scores
    assert expected_calibration_error(scores, right) < 0.01
    assert expected_calibration_error(scores**3, right) > 0.2
    assert brier_score(scores, right) == pytest.approx(1 / 6, abs=0.003)  # the integral of p (1 - p)


def test_a_score_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(ValueError, match="no probability"):
        reliability_table(np.array([1.2]), np.array([True]))


# ------------------------------------------------------------------------------------ biases
def test_the_share_of_lowest_last_steps_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 4, size) / 4 for size in rng.integers(1, 7, 3000)]
    several = [row for row in rows if len(row) > 1]
    expected = sum(row[-1] < min(row[:-1]) for row in several) / len(several)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    assert lowest_at_last(np.concatenate(rows), offsets) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(lowest_at_last(np.array([0.5]), np.array([0, 1])))


def test_right_answers_by_a_wrong_step_are_counted_and_those_that_are_found() -> None:
    offsets = np.array([0, 2, 4, 6, 8, 10])
    labels = np.array([1, 0, 0, 1, 0, 0, 1, 1, np.nan, 0])
    outcomes = np.array([1, 1, 0, 1, np.nan])
    scores = np.array([0.9, 0.4, 0.9, 0.5, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1])
    found = flawed_but_right(scores, offsets, labels, outcomes, 0.5)
    assert found == {"rows": 2, "found": 0.5}  # the first two; a score at the threshold is right
    none = flawed_but_right(scores, offsets, np.ones(10), outcomes, 0.5)
    assert none["rows"] == 0 and math.isnan(none["found"])


def test_length_correlation_equals_pearson() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 8, 30)
    scores = rng.random(int(lengths.sum()))
    offsets = np.cumsum([0, *lengths])
    lows = [scores[a:b].min() for a, b in pairwise(offsets)]
    assert length_correlation(scores, offsets, "min") == pytest.approx(pearsonr(lows, lengths).statistic)


def test_step_drift_by_hand() -> None:
    scores, offsets = np.array([0.8, 0.2, 0.6, 0.4, 0.9]), np.array([0, 2, 5])
    table = step_drift(scores, offsets, np.array([1, 0, 1, NAN, 1.0]))
    assert table["all_mean"].tolist() == pytest.approx([0.7, 0.3, 0.9])
    assert table["all_count"].tolist() == [2, 2, 1]
    assert table["right_mean"][[0, 2]].tolist() == pytest.approx([0.7, 0.9])
    assert table["right_count"].tolist() == [2, 0, 1]
    assert table["wrong_count"].tolist() == [0, 1, 0]
    assert math.isnan(table["right_mean"][1])
    assert table["right_error"][0] == pytest.approx(np.std([0.8, 0.6], ddof=1) / math.sqrt(2))
    assert math.isnan(table["right_error"][2])


def test_the_slope_is_that_of_right_steps() -> None:
    """Wrong steps stand late and score low: over all steps the slope would be another."""
    rng = np.random.default_rng(1)
    offsets = np.arange(0, 101, 5)
    place = np.tile(np.arange(5), 20)
    labels = (rng.random(100) > place / 5).astype(float)
    scores = rng.random(100) - 0.03 * place - 0.5 * (labels == 0)
    wanted = linregress(place[labels == 1], scores[labels == 1]).slope
    assert drift_slope(scores, offsets, labels) == pytest.approx(wanted)
    assert math.isnan(drift_slope(np.ones(2), np.array([0, 1, 2]), np.ones(2)))


def tau_b(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b by counting pairs."""
    pairs = list(combinations(range(len(first)), 2))
    signs = [(np.sign(first[i] - first[j]), np.sign(second[i] - second[j])) for i, j in pairs]
    untied = [sum(bool(pair[side]) for pair in signs) for side in (0, 1)]
    return float(sum(a * b for a, b in signs)) / math.sqrt(untied[0] * untied[1])


def test_partial_scores_are_ranked_by_kendalls_tau() -> None:
    rng = np.random.default_rng(2)
    final = rng.integers(0, 6, 25) / 5
    partial = {8: rng.integers(0, 6, 25) / 5, 4: final**2, 2: 1 - final}
    found = partial_rank_correlation(partial, final)
    assert list(found) == [2, 4, 8]
    assert found[8]["tau"] == pytest.approx(tau_b(partial[8], final))
    assert found[4]["tau"] == pytest.approx(1.0)
    assert found[2]["tau"] == pytest.approx(-1.0)


def test_steps_that_are_not_longer_are_left_out() -> None:
    """They would agree with themselves and raise the correlation."""
    final = np.array([0.1, 0.2, 0.3, 0.9])
    found = partial_rank_correlation({32: np.array([0.3, 0.2, 0.1, NAN])}, final)
    assert found[32] == {"steps": 3, "tau": pytest.approx(-1.0)}
    assert math.isnan(partial_rank_correlation({64: np.full(4, NAN)}, final)[64]["tau"])


def test_the_correlation_within_groups_ignores_differences_between_them() -> None:
    final = np.array([0.1, 0.2, 0.8, 0.9, 0.5])
    partial = {4: np.array([0.2, 0.1, 0.9, 0.8, 0.5])}
    found = partial_rank_correlation(partial, final, np.array([0, 0, 1, 1, 2]))
    assert found[4]["tau_within"] == pytest.approx(-1.0)
    assert found[4]["tau"] > 0


def test_a_final_score_that_is_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="final score 1 is nan"):
        partial_rank_correlation({4: np.zeros(2)}, np.array([0.0, NAN]))


# --------------------------------------------------------------------------------- everything
def row(labels: list[bool | None], problem: str = "p", **more: Any) -> StepRow:
    return StepRow(problem, ("step",) * len(labels), tuple(labels), problem, more.pop("subset", "a"), **more)


def test_steps_behind_the_first_wrong_one_have_no_part_in_auroc_and_calibration() -> None:
    rows = [row([True, False, None]), row([True], "q")]
    measured = measure_step_rows(rows, [[0.9, 0.2, 1.0], [0.8]])
    figures = measured["labels"]["all"]
    assert (figures["steps"], figures["auroc"]) == (3, 1.0)
    assert figures["brier"] == pytest.approx((0.01 + 0.04 + 0.04) / 3)
    assert sum(measured["reliability"]["count"]) == 3
    assert sum(measured["drift"]["all_count"]) == 4


def test_each_benchmark_takes_its_own_rows() -> None:
    """A label that is missing before the first wrong step hides where the first one is."""
    rows = [
        row([True, False], "p"),
        row([True, True], "q"),
        row([None, False], "r"),
        row([True], "s", classification=CORRECT, pair="x"),
        row([False, True], "s", classification="circular", pair="x"),
    ]
    measured = measure_step_rows(rows, [[0.9, 0.1], [0.9, 0.9], [0.9, 0.1], [0.9], [0.1, 0.9]])
    assert measured["first_error"]["subsets"]["a"]["rows"] == 2
    assert measured["first_error"]["subsets"]["a"]["f1"] == 1.0
    assert measured["prmbench"]["overall"]["steps"] == 2
    assert measured["prmbench"]["overall"]["similarity"] == pytest.approx(0.5)
    assert (measured["rows"], measured["problems"], measured["steps"]) == (5, 4, 9)


def test_traces_are_ranked_against_known_outcomes_alone() -> None:
    rows = [
        row([True, True], "p", outcome=1.0),
        row([True, True], "q", outcome=0.0),
        row([True, True], "r"),
    ]
    measured = measure_step_rows(rows, [[0.2, 0.9], [0.8, 0.5], [0.0, 0.0]])
    assert measured["trace_auroc"] == {"last": 1.0, "min": 0.0, "prod": 0.0, "mean": 0.0}
    rows[1] = row([True, True], "p", outcome=0.0)
    assert measure_step_rows(rows, [[0.2, 0.9], [0.8, 0.5], [0.0, 0.0]])["trace_auroc_within"]["last"] == 1.0
    assert "trace_auroc" not in measure_step_rows(rows[2:], [[0.0, 0.0]])


def test_beginnings_compete_at_one_place_of_one_problem() -> None:
    """Places of p: the first agrees, the second does not; q is alone, and its level must not count."""
    rows = [row([True, True], "p"), row([True, True], "p"), row([True, True], "q")]
    scores = [[0.1, 0.4], [0.2, 0.3], [0.8, 0.9]]
    partial = {5: [[0.3, 0.5], [0.4, 0.6], [0.7, 0.8]]}
    found = measure_step_rows(rows, scores, partial=partial)["partial_rank_correlation"]
    assert found[5]["tau_within"] == pytest.approx((1 - 1) / 2)
    assert found[5]["tau"] == pytest.approx(tau_b(np.ravel(partial[5]), np.ravel(scores)))


def test_without_beginnings_their_ranks_are_not_measured() -> None:
    assert "partial_rank_correlation" not in measure_step_rows([row([True])], [[0.5]])


def test_a_missing_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="solution 0 has 1 scores for 2 steps"):
        measure_step_rows([row([True, True])], [[0.5]])


LATE = [("b", 0, 1, [0.9, 0.1, 0.2, 0.3]), ("b", 1, -1, [0.9])]


"""0.15, 0.25 and 0.6 find the wrong step at 0.1: what is behind it does not count."""


def test_of_thresholds_that_are_as_good_the_middle_one_is_taken() -> None:
    data = traces([*LATE, ("a", 2, -1, [0.5])])
    assert cross_fitted(data)[1]["a"] == pytest.approx(0.25)


def test_a_subset_has_no_part_in_its_threshold_though_its_scores_are_of_the_same_scale() -> None:
    """Of subset a 0.6 would be the best by far."""
    data = traces([*LATE, *ideal("a", 12, 0.5, 0.9)])
    assert cross_fitted(data)[1]["a"] == pytest.approx(0.25)
    other = replace(data, first_error=np.where(data.subsets == "a", -1, data.first_error))
    assert cross_fitted(other)[1]["a"] == pytest.approx(0.25)
