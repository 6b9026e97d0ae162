"""ProcessBench (Zheng et al. 2024, arXiv 2412.06559): finding the first wrong step, by subsets."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.first_error import first_below, first_error_f1
from airls_ray.evaluation.prm_metrics.intervals import (
    Counts,
    group_sums,
    percentiles,
    ratio,
    resampled_sums,
)

_CANDIDATES = 200


@dataclass(frozen=True)
class Traces:
    """Scored solutions whose first wrong step is known."""

    scores: NDArray[np.float64]
    """[S], steps of all solutions one after the other; a right step scores high."""
    offsets: NDArray[np.int64]
    """[rows + 1]."""
    first_error: NDArray[np.int64]
    """[rows], counted from 0; -1: all steps are right."""
    subsets: NDArray[np.str_]
    """[rows], name of the subset."""
    problems: NDArray[np.int64]
    """[rows], number of the problem: solutions of the same problem are drawn together."""


def measure_first_errors(
    traces: Traces, threshold: float = 0.5, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:
    """F1 of the first wrong step at a fixed threshold and at one that was tuned elsewhere.

    A step is called wrong where it scores below the threshold. The F1 of a subset is the harmonic mean of the
    accuracy on solutions with a wrong step (named exactly) and on those without (none named); the mean over
    subsets is the benchmark's figure. Intervals are of 95 %, by drawing problems, each subset apart; the
    tuned thresholds are held, so the intervals do not cover their choice.

    Returns:
        `threshold`; `subsets`, by name: `rows`, `wrong` (solutions with a wrong step), `accuracy_wrong`,
        `accuracy_right`, `f1`, `low`, `high` and `tuned`: `thresholds` (see `cross_fitted`), `f1`, `low`,
        `high`; and `mean` over subsets: `f1`, `low`, `high`, `tuned`. An F1 is nan where a subset lacks one
        kind of solution, and so is then the mean.
    """
    fixed = first_below(traces.scores, traces.offsets, threshold)
    tuned, thresholds = cross_fitted(traces)
    folds = _folds(traces)
    subsets: dict[str, dict[str, Any]] = {}
    drawn: dict[str, list[NDArray[np.float64]]] = {"fixed": [], "tuned": []}
    for at, name in enumerate(np.unique(traces.subsets).tolist()):
        mask = traces.subsets == name
        figures = {}
        for way, predicted in (("fixed", fixed), ("tuned", tuned)):
            sums = group_sums(_hits(predicted[mask], traces.first_error[mask]), traces.problems[mask])
            drawn[way].append(f1_of_hits(resampled_sums(sums, draws, seed + at)))
            total = sums.sum(axis=0)
            figures[way] = _figure(float(f1_of_hits(total)), drawn[way][-1])
            if way == "fixed":
                accuracy_wrong, accuracy_right = ratio(total[0], total[1]), ratio(total[2], total[3])
        subsets[name] = {
            "rows": int(mask.sum()),
            "wrong": int((traces.first_error[mask] >= 0).sum()),
            "accuracy_wrong": float(accuracy_wrong),
            "accuracy_right": float(accuracy_right),
            **figures["fixed"],
            "tuned": {
                "thresholds": [thresholds[fold] for fold in np.unique(folds[mask]).tolist()],
                **figures["tuned"],
            },
        }
    mean = float(np.mean([one["f1"] for one in subsets.values()]))
    mean_tuned = float(np.mean([one["tuned"]["f1"] for one in subsets.values()]))
    return {
        "threshold": threshold,
        "subsets": subsets,
        "mean": {
            **_figure(mean, np.mean(drawn["fixed"], axis=0)),
            "tuned": _figure(mean_tuned, np.mean(drawn["tuned"], axis=0)),
        },
    }


def cross_fitted(traces: Traces) -> tuple[NDArray[np.int64], dict[str, float]]:
    """Predict the first wrong step with thresholds that no solution of the same fold has helped to choose.

    A fold is a subset, or of a single subset one half of its problems. The threshold of a fold maximises the
    mean F1 of the other folds, over the middles between up to 200 quantiles of their scores: one that is
    chosen on the solutions it is measured on would flatter.

    Returns:
        Predictions [rows] (-1: none) and the threshold of each fold; nan where no other fold has both kinds
        of solutions, and then nothing is called wrong.
    """
    folds = _folds(traces)
    names = np.unique(folds).tolist()
    fold_of_step = np.repeat(folds, np.diff(traces.offsets))
    predicted = np.full(len(folds), -1, dtype=np.int64)
    thresholds: dict[str, float] = {}
    for fold in names:
        thresholds[fold] = _best_threshold(
            traces, [folds == other for other in names if other != fold], traces.scores[fold_of_step != fold]
        )
        if not np.isnan(thresholds[fold]):
            calls = first_below(traces.scores, traces.offsets, thresholds[fold])
            predicted[folds == fold] = calls[folds == fold]
    return predicted, thresholds


def f1_of_hits(sums: Counts) -> NDArray[np.float64]:
    """F1 [...] of sums [..., 4]: hits on wrong solutions, wrong ones, hits on right ones, right ones."""
    wrong, right = ratio(sums[..., 0], sums[..., 1]), ratio(sums[..., 2], sums[..., 3])
    both = wrong + right
    return np.where(both == 0, 0.0, ratio(2 * wrong * right, both))


def _best_threshold(traces: Traces, others: list[NDArray[np.bool_]], scores: NDArray[np.float64]) -> float:
    """Threshold of the highest mean F1 over `others`; of equal ones the middle one, which is safest."""
    if not len(scores):
        return nan
    levels = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, _CANDIDATES), method="nearest"))
    fits: dict[float, float] = {}
    for threshold in [float(levels[0]), *((levels[:-1] + levels[1:]) / 2).tolist()]:
        calls = first_below(traces.scores, traces.offsets, threshold)
        found = [first_error_f1(calls[mask], traces.first_error[mask]) for mask in others]
        known = [fit for fit in found if fit == fit]
        if known:
            fits[threshold] = sum(known) / len(known)
    top = max(fits.values(), default=nan)
    best = [threshold for threshold, fit in fits.items() if fit == top]
    return best[len(best) // 2] if best else nan


def _folds(traces: Traces) -> NDArray[np.str_]:
    if len(np.unique(traces.subsets)) > 1:
        return traces.subsets
    _, number = np.unique(traces.problems, return_inverse=True)
    return np.where(number % 2 == 0, "even", "odd")


def _hits(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each solution adds to the sums of `f1_of_hits`: float64 [rows, 4]."""
    hit, wrong = predicted == true, true >= 0
    return np.stack([hit & wrong, wrong, hit & ~wrong, ~wrong], axis=1).astype(np.float64)


def _figure(value: float, drawn: NDArray[np.float64]) -> dict[str, float]:
    low, high = percentiles(drawn)
    return {"f1": value, "low": low, "high": high}
