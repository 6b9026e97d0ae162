"""Groups whose outcomes are not all equal (`method.drop_constant_groups`; DAPO)."""

from __future__ import annotations

import torch
from torch import Tensor


def keep(outcomes: Tensor, groups: Tensor) -> Tensor:
    """Return whether a rollout's group has two outcomes that differ: bool [N].

    Args:
        outcomes: float [N].
        groups: int64 [N], numbered from 0.
    """
    exact, size = outcomes.double(), int(groups.max()) + 1 if groups.numel() else 0
    low = torch.full((size,), torch.inf, dtype=exact.dtype).scatter_reduce(0, groups, exact, "amin")
    high = torch.full((size,), -torch.inf, dtype=exact.dtype).scatter_reduce(0, groups, exact, "amax")
    return (high > low)[groups]
