"""Which groups of an iteration's rollouts are learned from."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.credit.filters import accuracy_band, varied_groups


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
    groups = group_numbers(rollouts)
    outcomes = torch.from_numpy(rollouts["outcome"].to_numpy(zero_copy_only=False).copy())
    kept = torch.ones(rows.numel(), dtype=torch.bool)
    if drop_constant:
        kept &= varied_groups.keep(outcomes, groups)
    if band is not None:
        kept &= accuracy_band.keep(outcomes, groups, band)
    return rows[kept]


def group_numbers(rollouts: pa.Table) -> Tensor:
    """Number the groups of the table from 0: int64 [rows]."""
    values = torch.from_numpy(rollouts["group"].to_numpy(zero_copy_only=False).copy())
    return torch.unique(values, return_inverse=True)[1]
