"""Divides by the largest absolute reward-to-go of the rollouts that learn (`method.step_scale`)."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 1e-4
"""Returns of rewards that are smaller come from rounding."""


def transform(rewards: Tensor, step_rows: Tensor, learns: Tensor) -> Tensor:
    """Divide all rewards by the largest absolute reward-to-go of the rollouts that learn [S].

    Where that is below `ROUNDING` they stay as they are: a PRM that equals its reference model still differs
    from it by rounding, which must not become a reward.

    `prime_norm: batch_norm` of PRIME's published program (arXiv 2502.01456), which brings process rewards to
    the scale of outcomes; it filters the groups before.

    Args:
        rewards: float [S].
        step_rows: int64 [S].
        learns: bool [N], rollouts whose rewards-to-go count.
    """
    exact = rewards.double()
    ends = torch.bincount(step_rows, minlength=learns.numel()).cumsum(0)[step_rows]
    running = exact.cumsum(0)
    returns = (running[ends - 1] - running + exact)[learns[step_rows]]
    largest = returns.abs().max() if returns.numel() else torch.zeros(())
    return rewards if float(largest) < ROUNDING else (exact / largest).to(rewards.dtype)
