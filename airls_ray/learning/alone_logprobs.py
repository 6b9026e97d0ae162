"""How likely the policy finds responses without their problems: what outcome terms may ask for."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.engine import TrainEngine, share_rows
from airls_ray.learning.passes import token_logprobs
from airls_ray.tensors import to_packed
from airls_ray.tensors.segments import segment_mean

NAME = "mean_logprobs_alone"
"""What a term takes that asks for them."""


def takes_alone(method: MethodConfig) -> bool:
    """Whether an outcome term needs them: they cost a pass of the policy over the responses."""
    return any(NAME in one.open().needed for one in method.terms)


def mean_logprobs_alone(
    engine: TrainEngine,
    rollouts: pa.Table,
    empty_prompt: Sequence[int],
    learner: LearnerConfig,
    *,
    temperature: float,
    pad_id: int,
) -> Tensor:
    """Mean log-probability of each response's tokens behind an empty problem; collective.

    Args:
        engine: this rank's engine, its module a `PolicyModule`.
        rollouts: ROLLOUTS, the same on every rank.
        empty_prompt: tokens of the prompt of a problem without text, at least one.
        learner: micro-batches and layout.
        temperature: the sampler's.
        pad_id: padding token.

    Returns:
        float64 [N], nats per token; 0 for a response without tokens. The same on every rank.
    """
    rows = rollouts.num_rows
    place = rollouts.schema.get_field_index("prompt")
    field = rollouts.schema.field(place)
    alone = rollouts.set_column(place, field, pa.array([list(empty_prompt)] * rows, field.type))
    return mean_logprobs(engine, alone, learner, temperature=temperature, pad_id=pad_id)


def mean_logprobs(
    engine: TrainEngine, table: pa.Table, learner: LearnerConfig, *, temperature: float, pad_id: int
) -> Tensor:
    """Mean log-probability of each response's tokens under the engine's model; collective.

    Args:
        engine: this rank's engine, its module a `PolicyModule`.
        table: with the columns `prompt`, `response` and `step_ends` of ROLLOUTS, the same on every rank.
        learner: micro-batches and layout.
        temperature: the sampler's.
        pad_id: padding token.

    Returns:
        float64 [N], nats per token; 0 for a response without tokens. The same on every rank.
    """
    part = token_logprobs(
        engine,
        table,
        temperature=temperature,
        tokens_per_microbatch=learner.tokens_per_microbatch,
        pad_id=pad_id,
        layout=learner.layout,
    )
    means = torch.zeros(table.num_rows, dtype=torch.float64)
    means[torch.from_numpy(part["row"].to_numpy().copy())] = row_means(part["logprobs"])
    return share_rows(engine, means, torch.arange(table.num_rows))


def row_means(column: pa.ChunkedArray) -> Tensor:
    """Mean of each row of a list column: float64 [rows], 0 for an empty one."""
    packed = to_packed(column)
    owner = torch.repeat_interleave(torch.arange(packed.rows), packed.lengths)
    return segment_mean(packed.values.double(), owner, packed.rows)
