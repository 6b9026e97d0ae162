"""1 if a step keeps a share of the value before it, and any at all (GenPRM, StepWiser).

GenPRM (arXiv 2504.00891): P_t = MC_t / MC_{t-1}, good if P_t >= 0.8. StepWiser (arXiv 2508.19229, Rel-Ratio):
good if the ratio is above gamma. Monte Carlo values alone call a step bad that changes nothing in a solution
that was lost before, and good where chance mends it.
"""

from __future__ import annotations

import numpy as np

from airls_ray.prm.step_values import values_before

_ROUNDING = 1e-9


def label(
    values: np.ndarray,
    positions: np.ndarray,
    outcomes: np.ndarray,
    groups: np.ndarray,
    step_rows: np.ndarray,
    least: float = 0.8,
    strict: bool = False,
) -> np.ndarray:
    """Label all steps [S] by v_t >= `least` v_{t-1} and v_t > 0; with `strict` by > in both places.

    Before the first step the value is the share of the problem's rollouts that are right. StepWiser's is
    `strict`, with a `least` of 0.8 or 0.7 [P] for their models of 1.5B and 7B.
    """
    needed = least * values_before(values, positions, outcomes, groups, step_rows)
    kept = values > needed + _ROUNDING if strict else values >= needed - _ROUNDING
    good: np.ndarray = (values > 0) & kept
    return good.astype(np.float64)
