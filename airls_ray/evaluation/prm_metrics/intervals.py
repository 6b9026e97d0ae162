"""Bootstrap over problems of measures that are no means, such as an F1: they are functions of sums."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
"""float64 [..., C]: what a measure is computed from, added up over rows."""


def group_sums(values: NDArray[np.generic], groups: NDArray[np.generic]) -> Counts:
    """Add up the rows of each group: values [rows, C] to [groups, C], groups in sorted order."""
    _, inverse = np.unique(groups, return_inverse=True)
    exact = np.asarray(values, dtype=np.float64)
    return np.stack([np.bincount(inverse, column) for column in exact.T], axis=1)


def resampled_sums(sums: Counts, draws: int, seed: int) -> Counts:
    """Sums [groups, C] over as many groups as there are, drawn with replacement: [draws, C]."""
    groups = len(sums)
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1.0 / groups), size=draws)
    return np.asarray(times @ sums)


def bootstrap(
    sums: Counts,
    measure: Callable[[Counts], NDArray[np.float64]],
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of `measure` over problems, by percentiles.

    Args:
        sums: [problems, C]: what a problem adds to the sums that `measure` takes.
        measure: [..., C] to [...]; nan where it is not defined (such draws are left out).
        seed: of the resampling.
        draws: resamples.
        level: probability that the interval covers.

    Returns:
        Lower and upper bound; (nan, nan) without problems or where no draw defines the measure.
    """
    if not len(sums):
        return nan, nan
    return percentiles(measure(resampled_sums(sums, draws, seed)), level)


def percentiles(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the central interval of drawn values [draws] that are not nan; (nan, nan) if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return nan, nan
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high)


def ratio(above: NDArray[np.generic], below: NDArray[np.generic]) -> NDArray[np.float64]:
    """Divide; nan where the denominator is 0."""
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, nan), where=bottom != 0)
