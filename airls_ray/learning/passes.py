"""Passes without gradients over the distinct sequences of a table: equal ones are computed once.

On small tasks, where a right solution is unique, half of an iteration's rollouts repeat another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.data.schemas import TOKEN_LOGPROBS
from airls_ray.learning.batches import Sequences, all_rows, part_table, rank_batches
from airls_ray.learning.engine import ForwardEngine, resolve_layout
from airls_ray.tensors import PackedColumn, TokenBatch
from airls_ray.tensors.batch import Layout
from airls_ray.tensors.equal_rows import first_equal_rows


def computed_once(
    engine: ForwardEngine,
    sequences: Sequences,
    actions: PackedColumn,
    compute: Callable[[TokenBatch], Tensor],
    tokens_per_microbatch: int,
    layout: Layout,
    pad_id: int,
) -> tuple[PackedColumn, Tensor]:
    """Values of every action, and the rows that this rank knows them of.

    Collective; every row is known by one rank, which has those that are equal to it, too.

    Args:
        engine: computes.
        sequences: of all rows.
        actions: column of `sequences` whose elements have a value each: its responses (tokens) or step ends.
        compute: values of a micro-batch's actions on its device, in its order.
        tokens_per_microbatch: at most.
        layout: of the micro-batches.
        pad_id: padding token.

    Returns:
        fp32 values, packed as `actions` and 0 in rows of other ranks, and this rank's rows (int64, rising).
    """
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    first = first_equal_rows(columns, all_rows(sequences))
    values, known = torch.zeros(actions.values.numel()), torch.zeros(actions.rows, dtype=torch.bool)
    with torch.no_grad():
        for batch in rank_batches(engine, sequences, first.unique(), tokens_per_microbatch, layout, pad_id):
            rows = batch.rows.cpu()
            values[actions.positions(rows)] = compute(batch).float().cpu()
            known[rows] = True
    return PackedColumn(values[actions.positions(first)], actions.offsets), known[first].nonzero().squeeze(1)


def token_logprobs(
    engine: ForwardEngine,
    table: pa.Table,
    *,
    temperature: float,
    tokens_per_microbatch: int,
    pad_id: int,
    layout: Literal["auto", "padded", "packed"] = "auto",
) -> pa.Table:
    """Log-probabilities of every response token under the engine's model, of this rank's rows.

    Returns:
        TOKEN_LOGPROBS with a first column `row` (int64, position in `table`); `merge_parts` puts the
        parts of all ranks into the table's order.
    """
    sequences = Sequences.of(table)
    logprobs, rows = computed_once(
        engine,
        sequences,
        sequences.response,
        lambda batch: engine.forward(batch.model_inputs(), temperature=temperature)[0],
        tokens_per_microbatch,
        resolve_layout(layout, engine),
        pad_id,
    )
    return part_table(rows, {"logprobs": logprobs.take(rows)}, TOKEN_LOGPROBS)
