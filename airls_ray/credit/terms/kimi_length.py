"""From 0.5 for the shortest response of a group to -0.5 for the longest (Kimi k1.5, arXiv 2501.12599)."""

from __future__ import annotations

import torch
from torch import Tensor


def term(outcomes: Tensor, groups: Tensor, lengths: Tensor) -> Tensor:
    """Return 0.5 - (length - min) / (max - min) of the group, of wrong responses no more than 0: float32 [N].

    The length reward of Kimi k1.5 (arXiv 2501.12599), as in LASER's program, where its `weight` is 0.4. It is
    0 for a group of one length.

    Args:
        outcomes: float [N]; right is above 0.5.
        groups: int64 [N], numbered from 0.
        lengths: int64 [N], tokens.
    """
    exact, size = lengths.double(), int(groups.max()) + 1 if groups.numel() else 0
    low = torch.full((size,), torch.inf, dtype=exact.dtype).scatter_reduce(0, groups, exact, "amin")[groups]
    high = torch.zeros(size, dtype=exact.dtype).scatter_reduce(0, groups, exact, "amax")[groups]
    value = 0.5 - (exact - low) / (high - low).clamp(min=1.0)
    value = torch.where(high > low, value, torch.zeros_like(value))
    return torch.where(outcomes > 0.5, value, value.clamp(max=0.0)).float()
