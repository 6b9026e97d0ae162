"""Values around the steps of rollouts, for label rules. N rollouts, S steps that lie rollout by rollout."""

from __future__ import annotations

import numpy as np


def values_before(
    values: np.ndarray, positions: np.ndarray, outcomes: np.ndarray, groups: np.ndarray, step_rows: np.ndarray
) -> np.ndarray:
    """Return V(s_t) = Q(s_{t-1}, a_{t-1}), the value of the prefix before each step.

    Before the first step it is the share of the problem's rollouts that are right.

    Args:
        values: float64 [S], Q(s_t, a_t).
        positions: int64 [S], place in the rollout, from 0.
        outcomes: float64 [N].
        groups: int64 [N], problem of each rollout.
        step_rows: int64 [S], rollout of each step.
    """
    start = np.bincount(groups, outcomes) / np.maximum(np.bincount(groups), 1)
    before: np.ndarray = np.where(positions > 0, np.roll(values, 1), start[groups[step_rows]])
    return before


def best_of(values: np.ndarray, count: int) -> np.ndarray:
    """Return 1 - (1 - p)^K: how often the best of K samples is right, each of which is with probability p."""
    best: np.ndarray = 1.0 - (1.0 - values) ** count
    return best
