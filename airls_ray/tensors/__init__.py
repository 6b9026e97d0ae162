"""From Arrow list columns to torch micro-batches and back, without Python lists."""

from airls_ray.tensors.batch import TokenBatch, make_batch
from airls_ray.tensors.microbatches import plan_microbatches
from airls_ray.tensors.packing import PackedColumn, to_list_column, to_packed
from airls_ray.tensors.segments import ranges, segment_mean, segment_sum

__all__ = [
    "PackedColumn",
    "TokenBatch",
    "make_batch",
    "plan_microbatches",
    "ranges",
    "segment_mean",
    "segment_sum",
    "to_list_column",
    "to_packed",
]
