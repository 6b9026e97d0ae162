"""r + o - 1: never above 0 in wrong rollouts, never below in right ones (ReNorm of PPR, arXiv 2509.25598)."""

from __future__ import annotations

from torch import Tensor


def transform(rewards: Tensor, step_rows: Tensor, outcomes: Tensor) -> Tensor:
    """Return r + o - 1: the outcome goes to every step, and both are centred by 1/2 [S].

    Reward normalisation of PPR (arXiv 2509.25598). For rewards in [0, 1] (`prm.reward: probability`); others
    keep no sign.

    Args:
        rewards: float [S], in [0, 1].
        step_rows: int64 [S].
        outcomes: float [N], in [0, 1].
    """
    return rewards + outcomes[step_rows].to(rewards.dtype) - 1.0
