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
    bootstrap,
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
    subsets: NDArray[np.int64]
    """[rows], number of the subset."""
    problems: NDArray[np.int64]
    """[rows], number of the problem: solutions of the same problem are drawn together."""


def measure_first_errors(
    traces: Traces, threshold: float = 0.5, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:
    """F1 of the first wrong step at a fixed threshold and at one that was tuned elsewhere.

    A step is called wrong where it scores below the threshold. The F1 of a subset is the harmonic mean of the
    accuracy on solutions with a wrong step (named exactly) and on those without (none named); the mean over
    subsets is the benchmark's figure. Intervals are of 95 %, by drawing problems, each subset apart; the
    tuned threshold is held, so they do not cover its choice.

    Returns:
        `threshold`, `subsets` (by number: `rows`, `wrong`, `accuracy_wrong`, `accuracy_right`, `f1`, `low`,
        `high`, and `tuned` with `threshold` (of one subset alone: one for each half), `f1`, `low`, `high`)
        and `mean` (`f1`, `low`, `high`, `tuned`). nan where a subset lacks one kind of solution, and then in
        the mean.
    """
    fixed = first_below(traces.scores, traces.offsets, threshold)
    tuned, thresholds = cross_fitted(traces)
    subsets: dict[int, dict[str, Any]] = {}
    drawn: dict[str, list[NDArray[np.float64]]] = {"fixed": [], "tuned": []}
    for number in np.unique(traces.subsets).tolist():
        mask = traces.subsets == number
        sums = {
            name: group_sums(_hits(predicted[mask], traces.first_error[mask]), traces.problems[mask])
            for name, predicted in (("fixed", fixed), ("tuned", tuned))
        }
        for name, one in sums.items():
            drawn[name].append(f1_of_hits(resampled_sums(one, draws, seed + int(number))))
        total = sums["fixed"].sum(axis=0)
        known = {int(fold): thresholds[int(fold)] for fold in np.unique(_folds(traces)[mask])}
        subsets[int(number)] = {
            "rows": int(mask.sum()),
            "wrong": int((traces.first_error[mask] >= 0).sum()),
            "accuracy_wrong": float(ratio(total[0], total[1])),
            "accuracy_right": float(ratio(total[2], total[3])),
            **_with_interval(sums["fixed"], seed, draws),
            "tuned": {
                "threshold": list(known.values()) if len(known) > 1 else next(iter(known.values())),
                **_with_interval(sums["tuned"], seed, draws),
            },
        }
    return {
        "threshold": threshold,
        "subsets": subsets,
        "mean": {
            **_mean([one["f1"] for one in subsets.values()], drawn["fixed"]),
            "tuned": _mean([one["tuned"]["f1"] for one in subsets.values()], drawn["tuned"]),
        },
    }


def cross_fitted(traces: Traces) -> tuple[NDArray[np.int64], dict[int, float]]:
    """Predict the first wrong step with thresholds that no solution of the same fold has helped to choose.

    A fold is a subset, or of a single subset one half of its problems. The threshold of a fold maximises the
    mean F1 of the other folds over 200 quantiles of their scores.

    Returns:
        Predictions [rows] (-1: none) and the threshold of each fold, nan where no other fold has both kinds
        of solutions (then nothing is called wrong).
    """
    folds = _folds(traces)
    predicted = np.full(len(folds), -1, dtype=np.int64)
    steps_fold = np.repeat(folds, np.diff(traces.offsets))
    thresholds: dict[int, float] = {}
    for fold in np.unique(folds).tolist():
        others = traces.scores[steps_fold != fold]
        best, chosen = -1.0, nan
        for value in np.unique(np.quantile(others, np.linspace(0, 1, _CANDIDATES))) if len(others) else []:
            calls = first_below(traces.scores, traces.offsets, float(value))
            fit = [
                first_error_f1(calls[folds == other], traces.first_error[folds == other])
                for other in np.unique(folds).tolist()
                if other != fold
            ]
            mean = float(np.nanmean(fit)) if not np.isnan(fit).all() else nan
            if mean > best:
                best, chosen = mean, float(value)
        thresholds[int(fold)] = chosen
        if not np.isnan(chosen):
            calls = first_below(traces.scores, traces.offsets, chosen)
            predicted[folds == fold] = calls[folds == fold]
    return predicted, thresholds


def f1_of_hits(sums: Counts) -> NDArray[np.float64]:
    """F1 [...] of sums [..., 4]: hits on wrong solutions, wrong ones, hits on right ones, right ones."""
    wrong, right = ratio(sums[..., 0], sums[..., 1]), ratio(sums[..., 2], sums[..., 3])
    both = wrong + right
    return np.where(both == 0, 0.0, ratio(2 * wrong * right, both))


def _hits(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a solution adds to the sums of `f1_of_hits`: float64 [rows, 4]."""
    hit, wrong = predicted == true, true >= 0
    return np.stack([hit & wrong, wrong, hit & ~wrong, ~wrong], axis=1).astype(np.float64)


def _folds(traces: Traces) -> NDArray[np.int64]:
    if len(np.unique(traces.subsets)) > 1:
        return traces.subsets
    _, number = np.unique(traces.problems, return_inverse=True)
    return np.asarray(number % 2, dtype=np.int64)


def _with_interval(sums: Counts, seed: int, draws: int) -> dict[str, float]:
    low, high = bootstrap(sums, f1_of_hits, seed, draws)
    return {"f1": float(f1_of_hits(sums.sum(axis=0))), "low": low, "high": high}


def _mean(values: list[float], drawn: list[NDArray[np.float64]]) -> dict[str, float]:
    low, high = percentiles(np.mean(drawn, axis=0))
    return {"f1": float(np.mean(values)), "low": low, "high": high}
