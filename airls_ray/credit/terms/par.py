"""How surely the PRM puts a rollout above the others of its group (PAR, arXiv 2502.18770)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from airls_ray.credit.formulas import trajectory_rewards


def term(
    rewards: Tensor,
    step_rows: Tensor,
    groups: Tensor,
    reduction: Literal["mean", "sum", "min", "last"] = "mean",
) -> Tensor:
    """Return the mean of sigmoid(R - R_ref) over the other rollouts of the group: float32 [N] in [0, 1].

    Preference as reward (arXiv 2502.18770, and its authors' program): bounded, and centred on references to
    the same prompt. There these are responses of the supervised policy, made once; here the group's own [C],
    since no PRM scores others. 0.5 for a rollout alone.

    Args:
        rewards: float [S], logits, so that sigmoid(R - R_ref) is a Bradley-Terry probability
            (`prm.reward: f`).
        step_rows: int64 [S], not decreasing.
        groups: int64 [N], numbered from 0.
        reduction: how the rewards of a rollout become its R.

    Raises:
        ValueError: `reduction` is unknown.
    """
    whole = trajectory_rewards(rewards.double(), step_rows, groups.numel(), reduction)
    result = torch.empty_like(whole)
    for rows in groups.argsort(stable=True).split(torch.bincount(groups).tolist()):
        above = torch.sigmoid(whole[rows, None] - whole[rows])
        result[rows] = (above.sum(1) - 0.5) / (rows.numel() - 1) if rows.numel() > 1 else 0.5
    return result.float()
