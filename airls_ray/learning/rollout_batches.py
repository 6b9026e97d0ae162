"""Micro-batches of the policy update, in which equal rollouts are computed once.

Small policies, and large ones that are sure of an answer, sample the same response again and again. Its
log-probabilities are computed once and given to each of the rollouts: the loss and its gradient stay what
they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from airls_ray.learning.batches import Sequences, rank_batches
from airls_ray.learning.engine import ForwardEngine
from airls_ray.tensors import PackedColumn, TokenBatch, make_batch
from airls_ray.tensors.batch import Layout
from airls_ray.tensors.equal_rows import first_equal_rows
from airls_ray.tensors.segments import offsets_of, ranges


@dataclass(frozen=True, eq=False)  # one is itself, so that it can be a key
class RolloutBatch:
    """B rollouts with R response tokens, as D distinct sequences with Q response tokens."""

    distinct: TokenBatch
    """What the model computes: D rows."""
    rows: Tensor
    """int64 [B], on the CPU: positions in the table; equal rollouts stand beside each other."""
    row_offsets: Tensor
    """int64 [B + 1]: response tokens of rollout b are `row_offsets[b]:row_offsets[b + 1]`."""
    token_index: Tensor | None
    """int64 [R]: which of the Q tokens each token is; None where no two rollouts are equal."""

    def expand(self, values: Tensor) -> Tensor:
        """Give each rollout the values of its distinct sequence: [Q] to [R], with gradient."""
        return values if self.token_index is None else values[self.token_index]

    def take(self, column: PackedColumn) -> Tensor:
        """Values of the rollouts, one for each response token: [R], on the batch's device (a copy)."""
        return column.take(self.rows).values.to(self.row_offsets.device)


def rollout_batches(
    engine: ForwardEngine,
    sequences: Sequences,
    rows: Tensor,
    tokens_per_microbatch: int,
    layout: Layout,
    pad_id: int,
) -> list[RolloutBatch]:
    """Return this rank's micro-batches of `rows`, as many on every rank and at least one.

    Equal rollouts are always in the same micro-batch. `tokens_per_microbatch` counts distinct sequences.

    Args:
        engine: this rank's.
        sequences: the table's.
        rows: int64, positions in the table; none gives one micro-batch without rollouts.
        tokens_per_microbatch: as for `plan_microbatches`.
        layout: of the distinct sequences.
        pad_id: padding token.
    """
    first = first_equal_rows((sequences.prompt, sequences.response), rows)
    distinct, number = torch.unique(first, return_inverse=True)
    counts = torch.bincount(number, minlength=distinct.numel())
    members = PackedColumn(rows[torch.argsort(number, stable=True)], offsets_of(counts))
    number_of_row = torch.zeros(sequences.response.rows, dtype=torch.int64)
    number_of_row[distinct] = torch.arange(distinct.numel())
    batches = rank_batches(engine, sequences, distinct, tokens_per_microbatch, layout, pad_id)
    if not batches:  # an update without rows is one of gradient 0, and still moves by its momentum
        columns = (sequences.prompt, sequences.response, sequences.step_ends)
        batches = [make_batch(*columns, rows, layout, pad_id).to(engine.device)]
    return [_with_members(batch, members.take(number_of_row[batch.rows.cpu()])) for batch in batches]


def _with_members(batch: TokenBatch, members: PackedColumn) -> RolloutBatch:
    """The micro-batch with the rollouts that its rows stand for."""
    if members.values.numel() == members.rows:
        return RolloutBatch(batch, members.values, batch.row_offsets, None)
    owner = torch.repeat_interleave(torch.arange(members.rows), members.lengths).to(batch.row_offsets.device)
    lengths = batch.row_offsets.diff()[owner]
    token_index = ranges(batch.row_offsets[owner], lengths)
    return RolloutBatch(batch, members.values, offsets_of(lengths), token_index)
