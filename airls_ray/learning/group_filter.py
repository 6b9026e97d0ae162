"""Which groups of an iteration's rollouts are learned from."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

_ROUNDING = 1e-6  # outcomes are float32: 4 / 5 must lie within a band that ends at 0.8


def rows_that_learn(
    rollouts: pa.Table, *, drop_constant: bool = False, band: tuple[float, float] | None = None
) -> Tensor:
    """Rows of the groups that are kept: int64, in the table's order.

    Args:
        rollouts: ROLLOUTS with outcomes.
        drop_constant: leave out groups whose outcomes are all equal (DAPO).
        band: leave out groups whose mean outcome lies outside, bounds included (rePIRL, PRIME).
    """
    rows = torch.arange(rollouts.num_rows)
    if not rows.numel() or (not drop_constant and band is None):
        return rows
    group = group_numbers(rollouts)
    outcome = torch.from_numpy(rollouts["outcome"].to_numpy(zero_copy_only=False).copy()).double()
    size = int(group.max()) + 1
    keep = torch.ones(size, dtype=torch.bool)
    if drop_constant:
        low = torch.full((size,), torch.inf, dtype=outcome.dtype).scatter_reduce(0, group, outcome, "amin")
        high = torch.full((size,), -torch.inf, dtype=outcome.dtype).scatter_reduce(0, group, outcome, "amax")
        keep &= high > low
    if band is not None:
        lowest, highest = band
        total = torch.zeros(size, dtype=outcome.dtype).index_add(0, group, outcome)
        mean = total / torch.bincount(group, minlength=size)
        keep &= (mean >= lowest - _ROUNDING) & (mean <= highest + _ROUNDING)
    return rows[keep[group]]


def group_numbers(rollouts: pa.Table) -> Tensor:
    """Number the groups of the table from 0: int64 [rows]."""
    values = torch.from_numpy(rollouts["group"].to_numpy(zero_copy_only=False).copy())
    return torch.unique(values, return_inverse=True)[1]
