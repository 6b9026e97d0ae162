"""Tables cut into this rank's micro-batches, and per-row results put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.learning.engine import ForwardEngine
from airls_ray.tensors import (
    PackedColumn,
    TokenBatch,
    make_batch,
    plan_microbatches,
    to_list_column,
    to_packed,
)
from airls_ray.tensors.batch import Layout


@dataclass(frozen=True)
class Sequences:
    """The token columns of rollouts or traces, as packed tensors (views of the table's memory)."""

    prompt: PackedColumn
    response: PackedColumn
    step_ends: PackedColumn

    @classmethod
    def of(cls, table: pa.Table) -> Sequences:
        """Read a ROLLOUTS or TRACES table."""
        return cls(*(to_packed(table[name]) for name in ("prompt", "response", "step_ends")))

    @property
    def lengths(self) -> Tensor:
        """int64 [rows], tokens of prompt and response."""
        return self.prompt.lengths + self.response.lengths


def rank_batches(
    engine: ForwardEngine,
    sequences: Sequences,
    rows: Tensor,
    tokens_per_microbatch: int,
    layout: Layout,
    pad_id: int,
) -> list[TokenBatch]:
    """Return this rank's micro-batches of `rows`, as many on every rank (some may have no rows)."""
    plan = plan_microbatches(sequences.lengths[rows], engine.world_size, tokens_per_microbatch, layout)
    return [
        make_batch(sequences.prompt, sequences.response, sequences.step_ends, rows[part], layout, pad_id).to(
            engine.device
        )
        for part in plan[engine.rank]
    ]


def take_values(column: PackedColumn, batch: TokenBatch) -> Tensor:
    """Values of the batch's rows, concatenated in the batch's order, on its device (a copy)."""
    return column.take(batch.rows.cpu()).values.to(batch.targets.device)


def add_sums(sums: dict[str, float], parts: dict[str, Tensor]) -> None:
    """Add the scalars of a micro-batch to the running sums."""
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + float(value)


def all_rows(sequences: Sequences) -> Tensor:
    """int64 [rows]: every row."""
    return torch.arange(sequences.response.rows)


def part_table(rows: Tensor, columns: Mapping[str, PackedColumn], schema: pa.Schema) -> pa.Table:
    """Make one rank's part of a table of list columns: `rows` (int64 [B]) of the table, and theirs alone in
    each of `columns`."""
    arrays: dict[str, pa.Array] = {"row": pa.array(rows.numpy())}
    for name, column in columns.items():
        kind = schema.field(name).type
        exact = pa.types.is_float64(kind.value_type)
        values = column.values.double() if exact else column.values.float()
        arrays[name] = to_list_column(values, column.offsets, kind)
    return pa.table(arrays).replace_schema_metadata(schema.metadata)
