"""Groups whose mean outcome lies in a band, bounds included (`method.accuracy_band`; rePIRL, PRIME)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ROUNDING = 1e-6  # outcomes are float32: 4 / 5 must lie within a band that ends at 0.8


def keep(outcomes: Tensor, groups: Tensor, band: Sequence[float] = (0.2, 0.8)) -> Tensor:
    """Return whether the mean outcome of a rollout's group lies within `band`: bool [N].

    Args:
        outcomes: float [N].
        groups: int64 [N], numbered from 0.
        band: lowest and highest mean.
    """
    lowest, highest = band
    exact, size = outcomes.double(), int(groups.max()) + 1 if groups.numel() else 0
    total = torch.zeros(size, dtype=exact.dtype).index_add(0, groups, exact)
    mean = total / torch.bincount(groups, minlength=size)
    return ((mean >= lowest - _ROUNDING) & (mean <= highest + _ROUNDING))[groups]
