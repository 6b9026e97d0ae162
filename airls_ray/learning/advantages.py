"""Credit assignment on tables: outcomes and step rewards in, one advantage per step out."""

from __future__ import annotations

import pyarrow as pa
import torch

from airls_ray import credit
from airls_ray.config.schema import MethodConfig
from airls_ray.tensors import to_list_column, to_packed


def assign_credit(
    rollouts: pa.Table, grades: pa.Table, scores: pa.Table | None, method: MethodConfig
) -> pa.ListArray:
    """Advantages of every step of every rollout.

    Args:
        rollouts: ROLLOUTS, whole groups.
        grades: GRADES, joined by position.
        scores: STEP_SCORES, joined by position; None where the method has no PRM.
        method: which advantage, and the weight of the steps.

    Returns:
        list<float32> [rows], one value per step.
    """
    steps = to_packed(rollouts["step_ends"])
    step_rows = torch.repeat_interleave(torch.arange(steps.rows), steps.lengths)
    groups = torch.from_numpy(rollouts["group"].to_numpy().copy())
    outcomes = torch.from_numpy(grades["outcome"].to_numpy().copy())
    outcome = credit.outcome_advantages(outcomes, groups, method.outcome_advantage)
    step = None
    if scores is not None and method.step_weight > 0:
        step = credit.step_advantages(
            to_packed(scores["rewards"]).values,
            step_rows,
            groups,
            per_step=method.return_per_step,
            to_go=method.step_return == "to_go",
        )
    advantages = credit.combine(outcome, step, step_rows, method.step_weight)
    return to_list_column(advantages.float(), steps.offsets, pa.list_(pa.float32()))
