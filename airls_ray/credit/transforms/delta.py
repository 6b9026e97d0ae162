"""Each step's reward less that of the next step, so that their sum stays bounded (`delta` of 2410.15115)."""

from __future__ import annotations

import torch
from torch import Tensor


def transform(rewards: Tensor, step_rows: Tensor) -> Tensor:
    """Return r_k - r_{k+1}; the last step but one keeps its r, and the last one has 0 [S].

    The delta mechanism of "On Designing Effective RL Reward at Training Time for LLM Reasoning" (arXiv
    2410.15115). The reward-to-go of a step is then its r alone, however many steps follow. The last step
    ends in the answer, so the outcome is its reward.

    Args:
        rewards: float [S].
        step_rows: int64 [S], not decreasing.
    """
    ends = torch.bincount(step_rows).cumsum(0)[step_rows]
    behind = ends - 1 - torch.arange(rewards.numel(), device=rewards.device)
    following = torch.zeros_like(rewards)
    following[:-1] = rewards[1:]
    none = torch.zeros_like(rewards)
    return torch.where(behind > 0, rewards - torch.where(behind > 1, following, none), none)
