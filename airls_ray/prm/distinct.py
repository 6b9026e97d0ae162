"""Equal sequences are computed once: their weights are added, which changes no gradient.

A rollout that repeats the trace of its problem, or another rollout, is the same input to the PRM. On
small tasks, where a right solution is unique, that is half of a batch and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from airls_ray.prm.batch import PRMBatch
from airls_ray.tensors import PackedColumn, segment_sum
from airls_ray.tensors.equal_rows import first_equal_rows


@dataclass(frozen=True)
class DistinctSequences:
    """The rows of a PRM batch to compute, and for each action its weight on either side.

    The columns keep the layout of the batch's actions; all rows but the first of equal ones are 0.
    """

    rows: Tensor
    """int64: the first row of every distinct sequence that has a weight."""
    expert_weights: PackedColumn
    policy_weights: PackedColumn


def merge_equal_sequences(batch: PRMBatch) -> DistinctSequences:
    """Add the weights of equal sequences (prompt, response and steps) to the first one of them.

    Exact because the loss is a sum over actions of weight times a function of the action's logit, and
    equal sequences have equal logits (their log-probabilities under the current policy are equal too).
    An objective of base `sampler` reads the probability of the policy that sampled: rollouts that differ in
    it stay apart. So do those that were cut into other steps, as stored rollouts and traces may be.
    """
    weights = batch.weights
    first = _first_equal(batch)
    owner = torch.repeat_interleave(torch.arange(weights.rows), weights.lengths)
    place = weights.positions(first)
    expert = batch.is_expert[owner]
    sides = [
        torch.zeros_like(weights.values).index_add(0, place[side], weights.values[side])
        for side in (expert, ~expert)
    ]
    total = torch.zeros(weights.rows).index_add(0, owner, sides[0] + sides[1])
    return DistinctSequences(
        rows=total.nonzero().squeeze(1),
        expert_weights=PackedColumn(sides[0], weights.offsets),
        policy_weights=PackedColumn(sides[1], weights.offsets),
    )


def _first_equal(batch: PRMBatch) -> Tensor:
    """int64 [N]: for each sequence the first row with the same tokens and steps."""
    sequences = batch.sequences
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    density = _densities(batch) if batch.traits.base == "sampler" else None
    return first_equal_rows(columns, torch.arange(sequences.prompt.rows), density)


def _densities(batch: PRMBatch) -> list[float]:
    """Log-probability of each failed rollout in steps of 0.01 nats, which rounding does not reach; of the
    expert side, which has no importance weights, 0."""
    column = batch.logprobs
    owner = torch.repeat_interleave(torch.arange(column.rows), column.lengths)
    sums = segment_sum(column.values.double(), owner, column.rows).masked_fill(batch.is_expert, 0.0)
    return [round(value, 2) for value in sums.tolist()]
