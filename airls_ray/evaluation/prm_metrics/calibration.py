"""Whether a score is a probability: Brier score, expected calibration error, reliability table."""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.prm_metrics.intervals import ratio

BINS = 10


def brier_score(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean squared distance of scores [n] in [0, 1] from the truth [n]; nan without steps.

    0 is perfect; a constant score reaches p (1 - p) at best, with p the share of right steps.
    """
    return float(np.mean((scores - right) ** 2)) if len(scores) else nan


def reliability_table(
    scores: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> dict[str, NDArray[np.float64]]:
    """Compare scores with the share of right steps among those that score alike.

    Args:
        scores: [n], in [0, 1].
        right: [n].
        bins: intervals of equal width; an inner edge belongs to the bin above it.

    Returns:
        Arrays [bins]: `low` and `high` (edges), `count`, `score` (mean) and `right` (share), the last two nan
        where a bin is empty.

    Raises:
        ValueError: a score lies outside [0, 1].
    """
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a score lies outside [0, 1] and is no probability")
    edges = np.arange(bins + 1) / bins  # linspace would put 0.3 below its own edge
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    return {
        "low": edges[:-1],
        "high": edges[1:],
        "count": count,
        "score": ratio(np.bincount(place, scores, bins), count),
        "right": ratio(np.bincount(place, right, bins), count),
    }


def expected_calibration_error(
    scores: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> float:
    """Mean distance of score and share of right steps over bins, weighted by their steps; nan without any.

    As in Guo et al. 2017 (arXiv 1706.04599), of the score that a step is right.
    """
    if not len(scores):
        return nan
    table = reliability_table(scores, right, bins)
    gaps = np.nan_to_num(np.abs(table["score"] - table["right"]))
    return float((gaps * table["count"]).sum() / len(scores))
