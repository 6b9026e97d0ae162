"""Stored rollouts, settings and tiny engines of the tests of PRMs from stored rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from airls_ray.config.schema import Config
from airls_ray.data.rollout_files import StoredRollouts
from airls_ray.data.schemas import STORED_ROLLOUTS, rows_to_table
from airls_ray.learning.engine import TorchEngine
from tests.tiny import make_rollouts, prm_module

NAMES = STORED_ROLLOUTS.names


def settings(method: str = "airl_s", **prm: Any) -> Config:
    form = {"parameterisation": "scalar_head", "search_aggregate": "mean"}
    learner = {"learning_rate": 1e-2, "gradient_clip": 0.0, "tokens_per_microbatch": 60}
    return Config.model_validate(
        {
            "method": method,
            "prm": {**form, "learner": learner, **prm},
            "supervised_prm": {
                "rollouts_per_update": 8, "held_out": 0.25, "epochs": 3, "labels": "outcome",
            },
        }
    )  # fmt: skip


def table_of(groups: int, size: int, *, seed: int, logprobs: bool, traces: bool = False) -> pa.Table:
    rows = []
    for row in make_rollouts(groups, size, seed=seed).to_pylist():
        kept = row["logprobs"] if logprobs else None
        row |= {"logprobs": kept, "answer": None, "outcome": 1.0 if traces else row["outcome"]}
        rows.append(tuple(row[name] for name in NAMES))
    return rows_to_table(rows, STORED_ROLLOUTS)


def stored(groups: int = 4, size: int = 4, *, logprobs: bool = False, traces: bool = True) -> StoredRollouts:
    """Rollouts, half of them right, and a trace of each problem without log-probabilities."""
    count = groups if traces else 0
    return StoredRollouts(
        table_of(groups, size, seed=0, logprobs=logprobs),
        table_of(groups, 1, seed=100, logprobs=False, traces=True).slice(0, count),
    )


def engine_of(folder: Path, config: Config) -> TorchEngine:
    module = prm_module(folder, config.prm.parameterisation)
    if config.prm.parameterisation == "scalar_head":
        with torch.no_grad():  # off zero, else all values are equal
            module.model.score.weight.copy_(torch.linspace(-1, 1, module.model.score.weight.numel()))
    return TorchEngine(module, config.prm.learner)


def values_at(engine: TorchEngine, table: pa.Table, where: str) -> list[list[float]]:
    """The head's raw outputs at the steps' last tokens, or at all tokens, straight from the model."""
    found = []
    for row in table.to_pylist():
        logits = engine.module.model(torch.tensor([row["prompt"] + row["response"]])).logits[0, :, 0]
        tokens = logits[len(row["prompt"]) :].detach().double().tolist()
        found.append([tokens[end - 1] for end in row["step_ends"]] if where == "steps" else tokens)
    return found
