"""The first wrong step of solutions by a binary search over their prefixes (OmegaPRM, arXiv 2406.06592).

A prefix is right if any completion of it is. A wrong solution of T steps costs at most ceil(log2 T) prefixes
instead of T - 1. A right one costs none: it completes each of its own prefixes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

UNKNOWN = -1
_CORRECT = 0.5

Probe = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`probe(rollouts, steps)`: for each pair whether the prefix that ends with that step, counted from 0, has a
right completion (bool)."""


def find_first_errors(
    steps: np.ndarray, outcomes: np.ndarray, groups: np.ndarray, probe: Probe
) -> np.ndarray:
    """Return the first wrong step of N rollouts, counted from 0; all searches make a round together.

    Section 3.2: split what is left at the middle; if the first half has a right completion the error is in
    the second half, else in the first. What is before the first step counts as right and the whole of a wrong
    solution as wrong. As their pool has no state that nothing succeeds from, a problem without a right
    rollout is not searched.

    Args:
        steps: int64 [N], how many each rollout has.
        outcomes: [N], right above 1/2.
        groups: int64 [N], problem of each rollout.
        probe: samples; called once a round, for different pairs.

    Returns:
        int64 [N]: the step; `steps` where there is none; `UNKNOWN` where nothing was searched.
    """
    right = outcomes > _CORRECT
    solved = np.bincount(groups, right) > 0 if len(groups) else np.zeros(0, bool)
    found: np.ndarray = np.where(right, steps, np.where(solved[groups], steps - 1, UNKNOWN))
    low, high = np.full_like(found, -1), found.copy()  # right up to `low`, wrong from `high`
    searched = ~right & (found != UNKNOWN)
    while (rows := np.flatnonzero(searched & (high - low > 1))).size:
        middle = (low[rows] + high[rows]) // 2
        good = probe(rows, middle)
        low[rows[good]], high[rows[~good]] = middle[good], middle[~good]
    return high
