"""Sums over variable-length segments, and the index arithmetic that packed batches need."""

from __future__ import annotations

import torch
from torch import Tensor


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Concatenate `arange(starts[i], starts[i] + lengths[i])` over i, without a Python loop.

    Args:
        starts: int64 [B].
        lengths: int64 [B], none negative.

    Returns:
        int64 [sum of lengths].
    """
    ends = lengths.cumsum(0)
    shifts = starts - (ends - lengths)
    return torch.repeat_interleave(shifts, lengths) + torch.arange(int(lengths.sum()), device=starts.device)


def offsets_of(lengths: Tensor) -> Tensor:
    """Return int64 [B+1] with 0 first and the running sum of `lengths` [B] after it."""
    offsets = torch.zeros(lengths.numel() + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def segment_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum `values` [R] into `size` segments, where value r belongs to segment `index[r]`.

    A segment without values gets 0. Differentiable in `values`.
    """
    return torch.zeros(size, dtype=values.dtype, device=values.device).index_add(0, index, values)


def segment_mean(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Average `values` [R] over `size` segments; a segment without values gets 0."""
    counts = torch.bincount(index, minlength=size).clamp(min=1)
    return segment_sum(values, index, size) / counts
