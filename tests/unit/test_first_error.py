"""The first wrong step: predictions, the harmonic mean, a threshold that is chosen elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from airls_ray.evaluation.first_error import cross_fitted_f1, first_below, first_error_f1

OFFSETS = np.array([0, 3, 5, 6])


def test_the_first_step_below_the_threshold_is_named() -> None:
    scores = np.array([0.9, 0.2, 0.1, 0.8, 0.7, 0.4])
    assert first_below(scores, OFFSETS, 0.5).tolist() == [1, -1, 0]


def test_f1_is_the_harmonic_mean_over_wrong_and_right_traces() -> None:
    """Wrong: one of two found exactly; right: two of three left alone."""
    true, predicted = np.array([1, 0, -1, -1, -1]), np.array([1, 2, -1, -1, 0])
    assert first_error_f1(predicted, true) == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_a_right_verdict_at_the_wrong_step_does_not_count() -> None:
    assert first_error_f1(np.array([2, -1]), np.array([1, -1])) == 0.0


def test_without_wrong_traces_there_is_no_f1() -> None:
    assert math.isnan(first_error_f1(np.array([-1, 0]), np.array([-1, -1])))


def test_a_perfect_scorer_reaches_one_and_a_constant_one_nothing() -> None:
    truth = np.array([1, 0, 1, 1, 1, 1] * 8, dtype=bool)
    offsets, groups = np.arange(0, 49, 3), np.arange(16) // 2
    assert cross_fitted_f1(truth.astype(float), offsets, truth, groups) == 1.0
    assert cross_fitted_f1(np.zeros(48), offsets, truth, groups) == 0.0


def test_the_threshold_is_not_chosen_where_it_is_measured() -> None:
    """Scores of the odd problems are shifted: a threshold of one half is useless on the other."""
    truth = np.array([1, 0, 1, 1] * 10, dtype=bool)
    offsets, groups = np.arange(0, 41, 2), np.arange(20) // 2
    shift = np.repeat(groups % 2, 2) * 10.0
    assert cross_fitted_f1(truth + shift, offsets, truth, groups) == 0.0
    assert cross_fitted_f1(truth.astype(float), offsets, truth, groups) == 1.0
