"""Step rewards count only in rollouts whose outcome reaches a threshold (G-RA, arXiv 2508.10548)."""

from __future__ import annotations

import torch
from torch import Tensor


def transform(rewards: Tensor, step_rows: Tensor, outcomes: Tensor, threshold: float = 1.0) -> Tensor:
    """Return the rewards of rollouts with an outcome of at least `threshold`, and 0 for the others [S].

    Gated reward accumulation (arXiv 2508.10548): steps cannot be paid for instead of the outcome.

    Args:
        rewards: float [S].
        step_rows: int64 [S].
        outcomes: float [N].
        threshold: least outcome, from 0 to 1 [C]; the paper's outcomes have a scale of their own.
    """
    return torch.where(outcomes[step_rows] >= threshold, rewards, torch.zeros_like(rewards))
