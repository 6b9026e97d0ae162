"""Which rows of list columns hold the same values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from airls_ray.tensors.packing import PackedColumn


def first_equal_rows(
    columns: Sequence[PackedColumn], rows: Tensor, marks: Sequence[Hashable] | None = None
) -> Tensor:
    """For each of `rows` the first one among them that is equal in all columns: int64 [rows].

    Args:
        columns: on the CPU, with as many rows each.
        rows: int64, positions in the columns.
        marks: one of each of `rows`; those with different marks are not equal.
    """
    values = [(column.values.numpy(), column.offsets.tolist()) for column in columns]
    seen: dict[tuple[Hashable, ...], int] = {}
    first = [
        seen.setdefault(
            (
                *(array[at[row] : at[row + 1]].tobytes() for array, at in values),
                None if marks is None else marks[place],
            ),
            row,
        )
        for place, row in enumerate(rows.tolist())
    ]
    return torch.tensor(first, dtype=torch.int64)
