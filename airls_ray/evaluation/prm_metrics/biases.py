"""What a score should not depend on, its length and its place, and whether a partial step's score lasts."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.prm_metrics.intervals import ratio
from airls_ray.evaluation.ranking import correlation
from airls_ray.evaluation.steps import Aggregate, aggregate_steps


def length_correlation(scores: NDArray[np.float64], offsets: NDArray[np.int64], how: Aggregate) -> float:
    """Pearson correlation of a solution's score with its number of steps; nan where either is constant.

    Args:
        scores: [S], steps of all solutions one after the other.
        offsets: [rows + 1].
        how: aggregation of step scores.
    """
    return correlation(aggregate_steps(scores, offsets, how), np.diff(offsets))


def lowest_at_last(scores: NDArray[np.float64], offsets: NDArray[np.int64]) -> float:
    """Share of the solutions of two steps and more whose one lowest score stands at the last step.

    A PRM for which that is most of them judges answers, not steps ("Lessons", arXiv 2501.07301). nan where
    every solution has one step.

    Args:
        scores: [S].
        offsets: [rows + 1].
    """
    several = np.diff(offsets) > 1
    if not several.any():
        return nan
    ends = offsets[1:] - 1
    earlier = np.where(np.isin(np.arange(len(scores)), ends), np.inf, scores)
    lowest_before = np.minimum.reduceat(earlier, offsets[:-1])
    return float((scores[ends] < lowest_before)[several].mean())


def flawed_but_right(
    scores: NDArray[np.float64],
    offsets: NDArray[np.int64],
    labels: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    threshold: float,
) -> dict[str, float]:
    """What a PRM makes of solutions whose answer is right and of which a step is wrong (arXiv 2501.07301).

    Args:
        scores: [S].
        offsets: [rows + 1].
        labels: [S], 1 right, 0 wrong, nan unknown.
        outcomes: [rows], nan where unknown.
        threshold: steps that score below it are called wrong.

    Returns:
        `rows`, how many there are, and `found`, the share of them of which any step is called wrong; nan
        where there is none.
    """
    flawed = np.logical_or.reduceat(labels == 0, offsets[:-1]) & (outcomes > 0.5)
    called = np.logical_or.reduceat(scores < threshold, offsets[:-1])
    found = float(called[flawed].mean()) if flawed.any() else nan
    return {"rows": int(flawed.sum()), "found": found}


def step_drift(
    scores: NDArray[np.float64], offsets: NDArray[np.int64], labels: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Mean score by the place of a step, of all steps and of those known to be right and wrong.

    Wrong steps stand late, so that a fall of the mean over all steps is no bias by itself; one of the mean
    over right steps is.

    Args:
        scores: [S].
        offsets: [rows + 1].
        labels: [S], 1 right, 0 wrong, nan unknown.

    Returns:
        Arrays [longest solution] by place from 0: for each of `all`, `right` and `wrong` `<name>_count`,
        `<name>_mean` (nan where there is none) and `<name>_error`, the standard error of the mean (nan below
        two steps).
    """
    place = np.arange(len(scores)) - np.repeat(offsets[:-1], np.diff(offsets))
    longest = int(np.diff(offsets).max(initial=0))
    table: dict[str, NDArray[np.float64]] = {}
    for name, mask in (("all", np.full(len(scores), True)), ("right", labels == 1), ("wrong", labels == 0)):
        at, values = place[mask], scores[mask]
        count = np.bincount(at, minlength=longest).astype(np.float64)
        mean = ratio(np.bincount(at, values, longest), count)
        spread = np.bincount(at, (values - mean[at]) ** 2, longest)
        table[f"{name}_count"] = count
        table[f"{name}_mean"] = mean
        table[f"{name}_error"] = np.sqrt(ratio(spread, np.where(count > 1, (count - 1) * count, 0.0)))
    return table


def drift_slope(
    scores: NDArray[np.float64], offsets: NDArray[np.int64], labels: NDArray[np.float64]
) -> float:
    """Change of a right step's score from one place to the next, by least squares; nan at one place only."""
    place = np.arange(len(scores)) - np.repeat(offsets[:-1], np.diff(offsets))
    mask = labels == 1
    if len(np.unique(place[mask])) < 2:
        return nan
    return float(np.polyfit(place[mask], scores[mask], 1)[0])


def partial_rank_correlation(
    partial: Mapping[int, NDArray[np.float64]],
    final: NDArray[np.float64],
    groups: NDArray[np.generic] | None = None,
) -> dict[int, dict[str, float]]:
    """Kendall's tau-b of scores after some tokens of a step with those of the whole step.

    Search that rejects on partial steps (early rejection) is safe where it is near 1, above all within the
    candidates that compete.

    Args:
        partial: number of tokens to scores [n] of the steps' beginnings; nan for a step that is not longer,
            which is left out: it would agree with itself.
        final: [n], scores of the whole steps.
        groups: [n], steps that compete with each other, such as continuations of one prefix; None: all.

    Returns:
        By number of tokens, rising: `steps` that are longer, `tau` over all of them, and with groups
        `tau_within`, the mean over groups in which it is defined. nan where all scores are equal.

    Raises:
        ValueError: lengths differ, or a final score is nan.
    """
    from scipy.stats import kendalltau

    if np.isnan(final).any():
        raise ValueError(f"final score {int(np.isnan(final).argmax())} is nan and cannot be ranked")
    result: dict[int, dict[str, float]] = {}
    for tokens in sorted(partial):
        scores = np.asarray(partial[tokens], dtype=np.float64)
        if scores.shape != final.shape:
            raise ValueError(f"partial scores {scores.shape} and final ones {final.shape} must match")
        longer = ~np.isnan(scores)
        result[tokens] = {
            "steps": int(longer.sum()),
            "tau": float(kendalltau(scores[longer], final[longer]).statistic) if longer.sum() > 1 else nan,
        }
        if groups is not None:
            taus = [
                float(kendalltau(scores[mask], final[mask]).statistic)
                for mask in (longer & (groups == group) for group in np.unique(groups[longer]))
                if mask.sum() > 1
            ]
            known = [tau for tau in taus if tau == tau]
            result[tokens]["tau_within"] = float(np.mean(known)) if known else nan
    return result
