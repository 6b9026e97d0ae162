"""1 if a step's value and the progress that it makes are above 0 together (StepWiser, arXiv 2508.19229).

Q + alpha A is the effective reward of PAV (arXiv 2410.08146, eq. 5); A is the advantage under the best of K
completions (StepWiser, eq. 3 and the rule below it, Rel-Effective).
"""

from __future__ import annotations

import numpy as np

from airls_ray.errors import DoorError
from airls_ray.prm.step_values import best_of, values_before

_ROUNDING = 1e-9


def label(
    values: np.ndarray,
    positions: np.ndarray,
    last: np.ndarray,
    outcomes: np.ndarray,
    groups: np.ndarray,
    step_rows: np.ndarray,
    alpha: float = 0.4,
    best_of_k: int = 4,
) -> np.ndarray:
    """Label all steps [S] by Q_t + alpha (Q'_t - Q'_{t-1}) > 0 with Q' = 1 - (1 - Q)^K.

    Before the first step the value is the share of the problem's rollouts that are right.

    Args:
        values: float64 [S]; the outcome at a last step.
        positions: int64 [S].
        last: bool [S].
        outcomes: float64 [N].
        groups: int64 [N].
        step_rows: int64 [S].
        alpha: weight of the progress; 0.4 and 0.8 [P] for their models of 1.5B and 7B.
        best_of_k: K; 4 [P].

    Raises:
        DoorError: alpha is below 0, or K below 1.
    """
    if alpha < 0 or best_of_k < 1:
        raise DoorError(
            "supervised_prm.labels: relative_effective takes an alpha of at least 0 and a best_of_k of at "
            f"least 1, but they are {alpha:g} and {best_of_k}: give others"
        )
    before = best_of(values_before(values, positions, outcomes, groups, step_rows), best_of_k)
    after = np.where(last, values, best_of(values, best_of_k))  # a whole solution has its outcome
    good: np.ndarray = values + alpha * (after - before) > _ROUNDING
    return good.astype(np.float64)
