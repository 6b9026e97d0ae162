"""1 if a step keeps a share of the value before it, and any at all (GenPRM, StepWiser).

GenPRM (arXiv 2504.00891): P_t = MC_t / MC_{t-1}, good if P_t >= 0.8. Monte Carlo values alone call a step bad
that changes nothing in a solution that was lost before, and good where chance mends it.
"""

from __future__ import annotations

import numpy as np


def label(
    values: np.ndarray,
    positions: np.ndarray,
    outcomes: np.ndarray,
    groups: np.ndarray,
    step_rows: np.ndarray,
    least: float = 0.8,
) -> np.ndarray:
    """Label all steps [S] by v_t >= `least` v_{t-1} and v_t > 0.

    Before the first step the value is the share of the problem's rollouts that are right.
    """
    start = np.bincount(groups, outcomes) / np.bincount(groups)
    before = np.where(positions > 0, np.roll(values, 1), start[groups[step_rows]])
    good: np.ndarray = (values > 0) & (values >= least * before)
    return good.astype(np.float64)
