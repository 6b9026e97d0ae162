"""Finding the first wrong step of a trace (as ProcessBench measures it, arXiv 2412.06559)."""

from __future__ import annotations

from math import nan

import numpy as np

_THRESHOLDS = 200


def first_below(scores: np.ndarray, offsets: np.ndarray, threshold: float) -> np.ndarray:
    """Index within each trace of the first step that scores below `threshold`; -1 where there is none.

    Args:
        scores: [S], steps of all traces one after the other.
        offsets: int64 [rows + 1].
        threshold: in the unit of the scores.

    Returns:
        int64 [rows].
    """
    position = np.arange(len(scores)) - np.repeat(offsets[:-1], np.diff(offsets))
    far = len(scores) + 1
    found = np.full(len(offsets) - 1, far)
    np.minimum.at(
        found,
        np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)),
        np.where(scores < threshold, position, far),
    )
    return np.where(found == far, -1, found)


def first_error_f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """Harmonic mean of the accuracies on wrong and on right traces.

    A wrong trace counts where its first wrong step is named exactly, a right one where no step is.

    Args:
        predicted: int [rows], -1 for "no wrong step".
        true: int [rows], the same.

    Returns:
        A number in [0, 1]; nan where one kind of trace does not occur.
    """
    hit, wrong = predicted == true, true >= 0
    if not wrong.any() or wrong.all():
        return nan
    on_wrong, on_right = float(hit[wrong].mean()), float(hit[~wrong].mean())
    return 0.0 if on_wrong + on_right == 0 else 2 * on_wrong * on_right / (on_wrong + on_right)


def cross_fitted_f1(scores: np.ndarray, offsets: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    """F1 with the threshold chosen on one half of the problems and measured on the other, both ways.

    A threshold is part of such a detector; chosen on the traces it is measured on it would flatter.

    Args:
        scores: [S].
        offsets: int64 [rows + 1].
        truth: bool [S], whether each step is right.
        groups: int [rows], problem of each trace: a problem's traces stay in one half.

    Returns:
        Mean of both halves; nan where a half lacks right or wrong traces.
    """
    true = first_below(truth.astype(np.float64), offsets, 0.5)
    _, problem = np.unique(groups, return_inverse=True)
    odd = problem % 2 == 1
    thresholds = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, _THRESHOLDS)))
    predictions = np.stack([first_below(scores, offsets, float(value)) for value in thresholds])
    results = []
    for chosen, measured in ((odd, ~odd), (~odd, odd)):
        fit = np.array([first_error_f1(row[chosen], true[chosen]) for row in predictions])
        if np.isnan(fit).all():
            return nan
        best = int(np.nanargmax(fit))
        results.append(first_error_f1(predictions[best][measured], true[measured]))
    return float(np.mean(results))
