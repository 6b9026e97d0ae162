"""Small learners, rollouts and batches that the tests of this folder learn from."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import ROLLOUTS
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.learning.policy import update_policy
from airls_ray.tensors import to_packed
from tests.tiny import make_rollouts, policy_module

TEMPERATURE = 0.8


class FakeRank(TorchEngine):
    """One of several ranks: keeps its gradients, and sums over ranks from what the others said."""

    def __init__(self, module: Any, config: LearnerConfig, rank: int, world_size: int) -> None:
        super().__init__(module, config)
        self.rank, self.world_size = rank, world_size
        self.gradients: list[torch.Tensor] = []

    def step(self) -> float:
        self.gradients = [parameter.grad.clone() for parameter in self._parameters]
        return super().step()


def learner(**changes: Any) -> LearnerConfig:
    return LearnerConfig(**{"learning_rate": 1e-2, "gradient_clip": 0.0, **changes})


def logprobs_of(folder: Path, table: pa.Table, temperature: float = TEMPERATURE) -> pa.Table:
    engine = TorchEngine(policy_module(folder), learner())
    part = token_logprobs(engine, table, temperature=temperature, tokens_per_microbatch=1000, pad_id=0)
    return merge_parts([part])


@cache
def on_policy(folder: Path, groups: int = 4, size: int = 4) -> pa.Table:
    """Rollouts whose log-probabilities are the policy's."""
    table = make_rollouts(groups, size)
    place = table.column_names.index("logprobs")
    return table.set_column(place, ROLLOUTS.field("logprobs"), logprobs_of(folder, table)["logprobs"])


def with_stale(table: pa.Table, rows: Collection[int]) -> pa.Table:
    """Rollouts of which `rows` are as if sampled by a policy that found each token 5 nats less likely."""
    logprobs = [
        [value - 5.0 for value in row] if at in rows else row
        for at, row in enumerate(table["logprobs"].to_pylist())
    ]
    field = ROLLOUTS.field("logprobs")
    return table.set_column(table.column_names.index("logprobs"), field, pa.array(logprobs, field.type))


def step_values(table: pa.Table, seed: int = 0) -> pa.Array:
    ends = to_packed(table["step_ends"])
    values = torch.randn(ends.values.numel(), generator=torch.Generator().manual_seed(seed))
    return pa.ListArray.from_arrays(pa.array(ends.offsets.int().numpy()), pa.array(values.numpy()))


def run_policy(
    engine: TorchEngine, table: pa.Table, method: MethodConfig, config: LearnerConfig, **options: Any
) -> dict[str, float]:
    return update_policy(
        engine,
        table,
        options.get("advantages", step_values(table)),
        options.get("reference_logprobs"),
        method,
        config,
        temperature=TEMPERATURE,
        max_response_tokens=8,
        pad_id=0,
        scores=options.get("scores"),
    )


def weights_of(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([value.flatten().clone() for _, value in engine.named_weights()])
