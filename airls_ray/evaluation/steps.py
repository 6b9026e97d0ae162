"""From the scores of steps to the score of a trace."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Aggregate = Literal["last", "min", "prod", "mean", "sum"]


def aggregate_steps(values: NDArray[np.generic], offsets: NDArray[np.integer], how: Aggregate) -> np.ndarray:
    """Reduce the step scores of each trace to one number.

    Exact zeros stay zeros: `prod` multiplies and does not go through logarithms.

    Args:
        values: [S], steps of all traces one after the other.
        offsets: [rows + 1], trace i has `values[offsets[i]:offsets[i + 1]]`.
        how: `last`, `min`, `prod`, `mean` or `sum`.

    Returns:
        float64 [rows].

    Raises:
        ValueError: a trace has no steps, the offsets do not span the values, or `how` is unknown.
    """
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(values):
        raise ValueError(f"offsets must go from 0 to the number of steps ({len(values)})")
    if (lengths < 1).any():
        raise ValueError(f"trace {int((lengths < 1).argmax())} has no steps, so it has no score")
    if not len(lengths):
        return np.zeros(0)
    exact, starts = np.asarray(values, dtype=np.float64), offsets[:-1]
    if how == "last":
        return np.asarray(exact[offsets[1:] - 1])
    if how == "min":
        return np.minimum.reduceat(exact, starts)
    if how == "prod":
        return np.multiply.reduceat(exact, starts)
    if how in ("mean", "sum"):
        total = np.add.reduceat(exact, starts)
        return total / lengths if how == "mean" else total
    raise ValueError(f"how must be last, min, prod, mean or sum, but is {how!r}")
