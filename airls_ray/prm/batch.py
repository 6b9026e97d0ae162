"""What the PRM learns from: rollouts and traces as one list of weighted sequences.

Pure functions on Arrow tables; every rank builds the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.learning.batches import Sequences
from airls_ray.objectives.airl import class_weights
from airls_ray.prm.objective_traits import ObjectiveTraits
from airls_ray.tensors import PackedColumn, to_packed

_AIRL = ObjectiveConfig(name="airl")
_CORRECT = 0.5  # an outcome above this is a correct rollout


@dataclass(frozen=True)
class PRMSource:
    """Rollouts with outcomes and the traces of their problems: of this iteration, or replayed.

    `rollout_logprobs` and `trace_logprobs` are TOKEN_LOGPROBS tables under the CURRENT policy (under the
    reference model where the objective's `base` is that), joined by position. Fresh rollouts carry those of
    the policy in their own column `logprobs`: then `rollout_logprobs` is None. That column is always of the
    policy that sampled them, which is what an objective of base `sampler` reads, however old they are.
    `outcomes` is a float column joined by position; None reads the rollouts' column `outcome`.
    """

    rollouts: pa.Table
    traces: pa.Table
    trace_logprobs: pa.Table
    rollout_logprobs: pa.Table | None = None
    outcomes: pa.ChunkedArray | pa.Array | None = None

    def of_rows(self, rows: Tensor) -> PRMSource:
        """The same with some of the rollouts only; all traces stay."""
        if rows.numel() == self.rollouts.num_rows:
            return self
        index = pa.array(rows.numpy())
        logprobs, outcomes = self.rollout_logprobs, self.outcomes
        return replace(
            self,
            rollouts=self.rollouts.take(index),
            rollout_logprobs=None if logprobs is None else logprobs.take(index),
            outcomes=None if outcomes is None else outcomes.take(index),
        )


@dataclass(frozen=True)
class PRMBatch:
    """Sequences of both classes. An action is a step or a token, by `PRMConfig.action`."""

    sequences: Sequences
    is_expert: Tensor
    """bool [N]: reference side."""
    problem: Tensor
    """int64 [N]: problem of each sequence, numbered over the batch."""
    logprobs: PackedColumn
    """Per response token, under what the objective's `base` says."""
    weights: PackedColumn
    """Per action, fp32; all together sum to 1 over the whole batch, and each class to 1/2 where the
    objective's sides are balanced."""
    objective: ObjectiveConfig = _AIRL
    """What learns from the batch."""

    @property
    def traits(self) -> ObjectiveTraits:
        """What the objective declares."""
        return traits_of_learning(self.objective)

    @property
    def policy_rollouts(self) -> int:
        """Sequences of the policy side that have a weight."""
        side = torch.zeros_like(self.is_expert)
        side[self.rows] = True
        return int((side & ~self.is_expert).sum())

    @property
    def rows(self) -> Tensor:
        """int64: the sequences that have a weight; the others need no computation."""
        weight = torch.zeros(self.is_expert.numel())
        owner = torch.repeat_interleave(torch.arange(self.weights.rows), self.weights.lengths)
        return weight.index_add(0, owner, self.weights.values).nonzero().squeeze(1)


def build_prm_batch(
    sources: Sequence[PRMSource], config: PRMConfig, objective: ObjectiveConfig = _AIRL
) -> PRMBatch:
    """Sort rollouts and traces into the two classes and weigh their actions.

    The objective declares what weighs the same within a class (`weighs`), whether traces join, and what the
    classes are (`sides`): the policy's sequences and those of the reference, balanced; or right and wrong
    rollouts, to which the fields on sides and pairing do not apply.

    Negatives are all rollouts or the failed ones (`negatives`); correct rollouts stay on the policy
    side, move to the reference side, or stand on both (`correct_rollouts`). With `pair_by_problem`
    the reference actions of a problem weigh together as much as its policy actions do, across all
    sources, and a problem without one of the two classes has no weight.

    Raises:
        ValueError: nothing learns by this objective.
        DoorError: it is one of the user's own, and declares what cannot be.
    """
    traits = traits_of_learning(objective)
    tables: list[pa.Table] = []
    expert: list[Tensor] = []
    for source in sources:
        current = None if traits.base == "sampler" else source.rollout_logprobs
        rollouts = _with_logprobs(source.rollouts, current)
        outcomes = source.outcomes if source.outcomes is not None else source.rollouts["outcome"]
        policy_side, reference_side = split_sides(outcomes, config, traits)
        policy = rollouts.take(policy_side)
        for table in (
            policy,
            rollouts.take(reference_side),
            *([_with_logprobs(source.traces, source.trace_logprobs)] if traits.needs_traces else []),
        ):
            tables.append(table.select(_COLUMNS))
            expert.append(torch.full((table.num_rows,), table is not policy))
    joined = pa.concat_tables(tables).combine_chunks()
    is_expert = torch.cat(expert)
    encoded = joined["problem_id"].combine_chunks().dictionary_encode()
    problem = torch.from_numpy(encoded.indices.to_numpy(zero_copy_only=False).astype("int64"))
    sequences = Sequences.of(joined)
    actions = sequences.step_ends if config.action == "step" else sequences.response
    weights = _weights(problem, is_expert, actions.lengths, config, traits)
    return PRMBatch(
        sequences=sequences,
        is_expert=is_expert,
        problem=problem,
        logprobs=to_packed(joined["logprobs"]),
        weights=PackedColumn(weights.float(), actions.offsets),
        objective=objective,
    )


def traits_of_learning(objective: ObjectiveConfig) -> ObjectiveTraits:
    """Return what an objective declares.

    Raises:
        ValueError: nothing learns by it.
        DoorError: it is one of the user's own, and declares what cannot be.
    """
    traits = objective.traits()
    if traits is None:
        raise ValueError(f"prm_objective {objective.name} has no PRM that learns")
    return traits


def _weights(
    problem: Tensor, is_expert: Tensor, lengths: Tensor, config: PRMConfig, traits: ObjectiveTraits
) -> Tensor:
    """Weight of every action, sequences concatenated."""
    owner = torch.repeat_interleave(torch.arange(lengths.numel()), lengths)
    balanced = traits.sides == "reference"
    if traits.weighs == "action":
        if balanced:
            return class_weights(problem[owner], is_expert[owner], config.pair_by_problem)
        return torch.full((owner.numel(),), 1.0 / max(owner.numel(), 1))
    used = lengths > 0
    by_sequence = torch.zeros(lengths.numel())
    if balanced:
        by_sequence[used] = class_weights(problem[used], is_expert[used], config.pair_by_problem)
    else:
        by_sequence[used] = 1.0 / max(int(used.sum()), 1)
    return (by_sequence / lengths.clamp(min=1))[owner]


_COLUMNS = ["problem_id", "prompt", "response", "step_ends", "logprobs"]


def split_sides(
    outcomes: pa.ChunkedArray | pa.Array, config: PRMConfig, traits: ObjectiveTraits
) -> tuple[pa.Array, pa.Array]:
    """Rows of the policy side and of the reference side; by `outcome` the wrong and the right ones."""
    correct = pc.greater(outcomes, _CORRECT)
    if correct.null_count:
        raise ValueError(f"{correct.null_count} rollouts have no outcome: grade them before the PRM update")
    if traits.sides == "outcome":
        return _rows_where(pc.invert(correct)), _rows_where(correct)
    keep = config.negatives == "all" and config.correct_rollouts in ("policy", "both")
    policy = pc.or_(pc.invert(correct), keep)
    reference = pc.and_(correct, config.correct_rollouts in ("reference", "both"))
    return _rows_where(policy), _rows_where(reference)


def _rows_where(mask: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
    return pc.indices_nonzero(array).cast(pa.int64())


def _with_logprobs(table: pa.Table, logprobs: pa.Table | None) -> pa.Table:
    """Put the column `logprobs` beside (or in place of) the table's own."""
    if logprobs is None:
        return table
    if logprobs.num_rows != table.num_rows:
        raise ValueError(f"{table.num_rows} sequences but {logprobs.num_rows} rows of log-probabilities")
    rest = table.drop_columns("logprobs") if "logprobs" in table.column_names else table
    return rest.append_column("logprobs", logprobs["logprobs"])
