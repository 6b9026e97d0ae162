"""The progress that a step makes under the policy that completes it, as (1 + A) / 2 (PAV, arXiv 2410.08146).

A = Q(s_t, a_t) - Q(s_{t-1}, a_{t-1}) (eq. 2) lies from -1 to 1 and a label from 0 to 1, so 1/2 is a step that
changes nothing. With `mean_squared_error` 2 sigmoid(f) - 1 learns A itself, since the loss is a quarter of
its squared error; `cross_entropy` has the same optimum. `prm.reward=signed_probability` gives it back.
"""

from __future__ import annotations

import numpy as np

from airls_ray.errors import DoorError
from airls_ray.prm.step_values import best_of, values_before


def label(
    values: np.ndarray,
    positions: np.ndarray,
    last: np.ndarray,
    outcomes: np.ndarray,
    groups: np.ndarray,
    step_rows: np.ndarray,
    best_of_k: int = 1,
) -> np.ndarray:
    """Label all steps [S] by (1 + A) / 2.

    Before the first step the value is the share of the problem's rollouts that are right.

    Args:
        values: float64 [S], Q of the policy that completes; the outcome at a last step.
        positions: int64 [S].
        last: bool [S].
        outcomes: float64 [N].
        groups: int64 [N].
        step_rows: int64 [S].
        best_of_k: K of the prover, the best of K completions: Q becomes 1 - (1 - Q)^K; 4 [P] in search.

    Raises:
        DoorError: K is below 1.
    """
    if best_of_k < 1:
        raise DoorError(
            "supervised_prm.labels: process_advantage takes a best_of_k of at least 1 (the policy itself), "
            f"but it is {best_of_k}: give another"
        )
    before = best_of(values_before(values, positions, outcomes, groups, step_rows), best_of_k)
    after = np.where(last, values, best_of(values, best_of_k))  # a whole solution has its outcome
    labels: np.ndarray = (1.0 + after - before) / 2.0
    return labels
