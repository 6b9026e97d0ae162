"""What the discriminator learns from: rollouts and traces as one list of weighted sequences.

Pure functions on Arrow tables; every rank builds the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.learning.batches import Sequences
from airls_ray.objectives.airl import class_weights
from airls_ray.tensors import PackedColumn, to_packed

_CORRECT = 0.5  # an outcome above this is a correct rollout


@dataclass(frozen=True)
class PRMSource:
    """Rollouts with outcomes and the traces of their problems: of this iteration, or replayed.

    `rollout_logprobs` and `trace_logprobs` are TOKEN_LOGPROBS tables under the CURRENT policy, joined
    by position. Fresh rollouts carry them in their own column `logprobs`: then `rollout_logprobs` is
    None. `outcomes` is a float column joined by position; None reads the rollouts' column `outcome`.
    """

    rollouts: pa.Table
    traces: pa.Table
    trace_logprobs: pa.Table
    rollout_logprobs: pa.Table | None = None
    outcomes: pa.ChunkedArray | pa.Array | None = None


@dataclass(frozen=True)
class PRMBatch:
    """Sequences of both classes. An action is a step or a token, by `PRMConfig.action`."""

    sequences: Sequences
    is_expert: Tensor
    """bool [N]: reference side."""
    problem: Tensor
    """int64 [N]: problem of each sequence, numbered over the batch."""
    logprobs: PackedColumn
    """Per response token, under the current policy."""
    weights: PackedColumn
    """Per action, fp32: each class sums to 1/2 over the whole batch."""

    @property
    def rows(self) -> Tensor:
        """int64: the sequences that have a weight; the others need no computation."""
        weight = torch.zeros(self.is_expert.numel())
        owner = torch.repeat_interleave(torch.arange(self.weights.rows), self.weights.lengths)
        return weight.index_add(0, owner, self.weights.values).nonzero().squeeze(1)


def build_prm_batch(sources: Sequence[PRMSource], config: PRMConfig) -> PRMBatch:
    """Sort rollouts and traces into the two classes and weigh their actions.

    Negatives are all rollouts or the failed ones (`negatives`); correct rollouts stay on the policy
    side, move to the reference side, or stand on both (`correct_rollouts`). With `pair_by_problem`
    the reference actions of a problem weigh together as much as its policy actions do, across all
    sources, and a problem without one of the two classes has no weight.
    """
    tables: list[pa.Table] = []
    expert: list[Tensor] = []
    for source in sources:
        rollouts = _with_logprobs(source.rollouts, source.rollout_logprobs)
        outcomes = source.outcomes if source.outcomes is not None else source.rollouts["outcome"]
        policy_side, reference_side = _sides(outcomes, config)
        for table in (
            rollouts.take(policy_side),
            rollouts.take(reference_side),
            _with_logprobs(source.traces, source.trace_logprobs),
        ):
            tables.append(table.select(_COLUMNS))
            expert.append(torch.full((table.num_rows,), len(expert) % 3 > 0))
    joined = pa.concat_tables(tables).combine_chunks()
    is_expert = torch.cat(expert)
    encoded = joined["problem_id"].combine_chunks().dictionary_encode()
    problem = torch.from_numpy(encoded.indices.to_numpy(zero_copy_only=False).astype("int64"))
    sequences = Sequences.of(joined)
    actions = sequences.step_ends if config.action == "step" else sequences.response
    owner = torch.repeat_interleave(torch.arange(joined.num_rows), actions.lengths)
    weights = class_weights(problem[owner], is_expert[owner], config.pair_by_problem)
    return PRMBatch(
        sequences=sequences,
        is_expert=is_expert,
        problem=problem,
        logprobs=to_packed(joined["logprobs"]),
        weights=PackedColumn(weights.float(), actions.offsets),
    )


_COLUMNS = ["problem_id", "prompt", "response", "step_ends", "logprobs"]


def _sides(outcomes: pa.ChunkedArray | pa.Array, config: PRMConfig) -> tuple[pa.Array, pa.Array]:
    """Rows of the policy side and of the reference side."""
    correct = pc.greater(outcomes, _CORRECT)
    if correct.null_count:
        raise ValueError(f"{correct.null_count} rollouts have no outcome: grade them before the PRM update")
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
