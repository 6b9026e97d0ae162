"""Arrow list columns as packed tensors: the values buffer is the token stream, read in place."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from airls_ray.tensors.segments import offsets_of, ranges


@dataclass(frozen=True)
class PackedColumn:
    """A list column: row i holds `values[offsets[i]:offsets[i + 1]]`.

    `values` [total] may be a view of read-only memory (Ray's object store): never write to it in
    place. `offsets` is int64 [rows + 1], starts at 0, and is always memory of its own.
    """

    values: Tensor
    offsets: Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.offsets.numel() - 1

    @property
    def lengths(self) -> Tensor:
        """Values per row, int64 [rows]."""
        return self.offsets.diff()

    def positions(self, rows: Tensor) -> Tensor:
        """Where the values of `rows` lie, concatenated in the order of `rows`: int64 [R]."""
        return ranges(self.offsets[rows], self.lengths[rows])

    def take(self, rows: Tensor) -> PackedColumn:
        """Copy `rows` (int64 [B]) into a packed column of their own, in that order."""
        return PackedColumn(self.values[self.positions(rows)], offsets_of(self.lengths[rows]))


def to_packed(column: pa.ChunkedArray | pa.Array) -> PackedColumn:
    """Return a list column as tensors.

    The values of a column of one chunk are a view of the Arrow buffer: nothing is copied, a slice
    points into the middle of it, and the buffer lives as long as the tensor. Several chunks are
    combined, which copies. So do bit-packed booleans.

    Raises:
        TypeError: the column does not hold lists of numbers or booleans.
        ValueError: a row, or a value within a row, is null.
    """
    array = _one_chunk(column)
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        raise TypeError(f"a packed column is made from a list column, but this one is {array.type}")
    if array.null_count:
        row = array.is_null().index(True).as_py()
        raise ValueError(f"row {row} of the list column is null ({array.null_count} of {len(array)} are)")
    if not len(array):
        return PackedColumn(_to_tensor(array.values.slice(0, 0)), torch.zeros(1, dtype=torch.int64))
    offsets = _to_tensor(array.offsets).to(torch.int64, copy=True)
    start, stop = int(offsets[0]), int(offsets[-1])
    values = array.values.slice(start, stop - start)
    if values.null_count:
        raise ValueError(f"the list column holds {values.null_count} null values inside its rows")
    return PackedColumn(_to_tensor(values), offsets - start)


def to_list_column(values: Tensor, offsets: Tensor, type: pa.DataType) -> pa.ListArray:
    """Return packed `values` [total] and `offsets` [rows + 1] as a list column of `type`.

    Args:
        values: any device; cast to the value type of `type` where it differs, else not copied.
        offsets: integers, not decreasing, from 0 to `total`.
        type: the type of the column, for example `pa.list_(pa.float32())`.

    Raises:
        TypeError: `type` is no list type.
        ValueError: the offsets do not span the values.
    """
    if not (pa.types.is_list(type) or pa.types.is_large_list(type)):
        raise TypeError(f"type must be a list type such as list<float>, but is {type}")
    if int(offsets[0]) != 0 or int(offsets[-1]) != values.numel() or bool((offsets.diff() < 0).any()):
        raise ValueError(f"offsets must rise from 0 to the number of values ({values.numel()})")
    offset_type, array_class = (
        (pa.int32(), pa.ListArray) if pa.types.is_list(type) else (pa.int64(), pa.LargeListArray)
    )
    arrow_values = pa.array(values.detach().cpu().numpy()).cast(type.value_type)
    arrow_offsets = pa.array(offsets.detach().cpu().numpy()).cast(offset_type)
    return array_class.from_arrays(arrow_offsets, arrow_values, type=type)


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _to_tensor(array: pa.Array) -> Tensor:
    if pa.types.is_boolean(array.type):
        return torch.from_numpy(array.to_numpy(zero_copy_only=False))
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise TypeError(f"a packed column holds numbers or booleans, but this one holds {array.type}")
    if not len(array):  # an empty array may have no buffer, which DLPack does not take
        return torch.from_numpy(array.to_numpy(zero_copy_only=False).copy())
    # DLPack and not `torch.from_numpy`: NumPy marks the memory read-only, of which torch warns.
    return from_dlpack(array)
