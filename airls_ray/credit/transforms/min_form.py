"""Weighs by softmax(-r / temperature): a rollout's sum is about its least (`method.step_transform`)."""

from __future__ import annotations

import torch
from torch import Tensor

from airls_ray.tensors.segments import segment_sum


def transform(rewards: Tensor, step_rows: Tensor, temperature: float = 0.1) -> Tensor:
    """Weigh the step rewards of each rollout so that their sum is about the least of them [S].

    PURE (arXiv 2504.15275): r*_t = r_t exp(-r_t / T) / sum_i exp(-r_i / T); for T to 0 the sum is min r.

    Args:
        rewards: float [S].
        step_rows: int64 [S].
        temperature: T above 0.
    """
    rows = int(step_rows.max()) + 1 if step_rows.numel() else 0
    scaled = -rewards.double() / temperature
    highest = torch.full((rows,), -torch.inf, dtype=torch.float64, device=rewards.device)
    highest = highest.scatter_reduce(0, step_rows, scaled, "amax")
    raw = (scaled - highest[step_rows]).exp()
    weights = raw / segment_sum(raw, step_rows, rows)[step_rows]
    return (rewards.double() * weights).to(rewards.dtype)
