"""One rank of the DeepSpeed tests, run as a process: updates on fixed tables, results to a file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import torch

from actors.learn import deepspeed_engine
from actors.learn.deepspeed_engine import DeepSpeedEngine, init_distributed
from airls_ray.config.schema import LearnerConfig, LoraConfig, MethodConfig, PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.learning.engine import FrozenEngine, TrainEngine, TrainModule
from airls_ray.learning.passes import token_logprobs
from airls_ray.learning.policy import update_policy
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.models.lora import load_with_adapters
from airls_ray.prm.batch import PRMSource, build_prm_batch
from airls_ray.prm.update import update_prm
from tests.tiny import make_rollouts, make_traces

Weights = dict[str, torch.Tensor]
LORA = LoraConfig(rank=4, alpha=64.0)


def lora_of(kind: str) -> LoraConfig:
    """Of a kind of case."""
    return LORA if kind.startswith("lora") else LoraConfig()


def learner(stage: int = 0, ranks: int = 1, kind: str = "policy") -> LearnerConfig:
    """Small micro-batches, so that gradients accumulate and some rank runs out of rows."""
    return LearnerConfig(
        optimizer="muon" if kind.endswith("muon") else "adamw",
        weight_decay=0.1 if kind.endswith("muon") else 0.0,
        offload_optimizer=kind == "offload",
        lora=lora_of(kind),
        learning_rate=1e-3,
        lr_warmup_updates=3,
        gradient_clip=0.05,
        tokens_per_microbatch=12 if kind == "bf16_many" else 40,
        ranks=ranks,
        zero_stage=stage,
    )


def rollouts(kind: str = "policy") -> pa.Table:
    """Nine rollouts of uneven lengths; `lone`: one, so that the second of two ranks has no row at all;
    `bf16_many`: enough for a hundred micro-batches."""
    if kind == "bf16_many":
        return make_rollouts(40, 3)
    return make_rollouts(3, 3).slice(1, 1) if kind == "lone" else make_rollouts(3, 3)


def train(
    engine: TrainEngine, config: LearnerConfig, updates: int = 3, kind: str = "policy"
) -> list[dict[str, float]]:
    """Policy updates on fixed rollouts; the advantages are the outcomes less 1/2."""
    table = rollouts(kind)
    pairs = zip(table["outcome"].to_pylist(), table["step_ends"].to_pylist(), strict=True)
    advantages = pa.array([[outcome - 0.5] * len(ends) for outcome, ends in pairs], pa.list_(pa.float32()))
    method = MethodConfig(name="grpo")
    options = {"temperature": 1.0, "max_response_tokens": 8, "pad_id": 0}
    return [update_policy(engine, table, advantages, None, method, config, **options) for _ in range(updates)]


def train_prm(engine: TrainEngine, config: LearnerConfig, model: Path) -> list[dict[str, float]]:
    """PRM updates on fixed sequences."""
    traces = make_traces(3)
    policy = FrozenEngine(load_policy_module(model))
    part = token_logprobs(policy, traces, temperature=1.0, tokens_per_microbatch=99, pad_id=0)
    prm = PRMConfig(parameterisation="scalar_head", learner=config.model_dump())
    batch = build_prm_batch([PRMSource(make_rollouts(3, 3), traces, merge_parts([part]))], prm)
    return [update_prm(engine, [batch], prm, temperature=1.0, pad_id=0, updates=3)]


def weights_of(engine: TrainEngine) -> Weights:
    """Copies of all weights."""
    return {name: weight.clone() for name, weight in engine.named_weights()}


def record_gradients(engine: TrainEngine, full: Callable[[torch.nn.Parameter], torch.Tensor]) -> Weights:
    """Return a dictionary that the first step fills with the gradients it is made of, before clipping."""
    seen: Weights = {}
    step = engine.step

    def record() -> float:
        if not seen:
            seen.update({name: full(one).clone() for name, one in engine.module.trainable_parameters()})
        return step()

    engine.step = record  # type: ignore[method-assign]
    return seen


def load(model: Path, kind: str, *, resumed: bool = False) -> TrainModule:
    """The module of a kind of case; `chunks`: log-probabilities from the logits of three tokens at a time."""
    if kind in ("prm", "lora_prm"):
        make = lambda folder: load_prm_module(folder, "scalar_head")  # noqa: E731
    else:
        make = lambda folder: load_policy_module(folder, "bfloat16" if kind.startswith("bf16") else "float32")  # noqa: E731
    module = load_with_adapters(make, str(model), lora_of(kind), seed=3, resumed=resumed)
    if kind == "chunks":
        module._most_tokens = 3
    return module


def sharding_of(kind: str) -> AbstractContextManager[Any]:
    """`chunks`: stage 3 shards all weights. By itself it keeps those below 100,000 numbers whole on every
    rank, so that a pass which does not gather them would not be noticed."""
    settings = deepspeed_engine.deepspeed_settings

    def all_sharded(*given: Any, **options: Any) -> dict[str, Any]:
        found = settings(*given, **options)
        found["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return found

    if kind != "chunks":
        return nullcontext()
    return patch.object(deepspeed_engine, "deepspeed_settings", all_sharded)


def muon_in(kind: str) -> AbstractContextManager[Any]:
    """`muon`: DeepSpeed's iteration in fp32. In its bfloat16, noise in what a gradient of low rank leaves out
    grows to the size of the update, and no two implementations agree."""
    if kind != "muon":
        return nullcontext()
    from deepspeed.runtime.zero.muon import original_muon

    return patch.object(original_muon, "ns_compute_dtype", lambda *_: torch.float32)


def skip_an_update(engine: DeepSpeedEngine, config: LearnerConfig) -> float:
    """An update to which rank 0 brings a gradient of NaN; returns how many were skipped by its metrics."""
    backward = engine.backward
    factor = math.nan if engine.rank == 0 else 1.0
    with patch.object(engine, "backward", lambda loss, *, last: backward(factor * loss, last=last)):
        return train(engine, config, updates=1)[0]["policy/skipped_updates"]


def run_case(kind: str, stage: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train by one kind and ZeRO stage."""
    from deepspeed.utils import safe_get_full_grad

    config = learner(stage, args.ranks, kind)
    engine = DeepSpeedEngine(lambda: load(args.model, kind), config)
    if kind in ("prm", "lora_prm"):
        return {"metrics": train_prm(engine, config, args.model), "weights": weights_of(engine)}
    if kind == "bf16":
        return {"metrics": train(engine, config), "weights": weights_of(engine)}
    skipped = skip_an_update(engine, config) if kind == "skips" else 0.0
    gradients = record_gradients(engine, safe_get_full_grad)
    if kind == "bf16_many":
        train(engine, config, updates=1, kind=kind)
        return {"gradients": gradients}
    result = {"metrics": train(engine, config, kind=kind), "weights": weights_of(engine)}
    result["gradients"] = gradients
    part = token_logprobs(engine, rollouts(kind), temperature=1.0, tokens_per_microbatch=40, pad_id=0)
    result["rows"] = part["row"].to_pylist()
    result["skipped"] = skipped
    if kind in ("lone", "skips"):
        return result
    saved = args.out / f"saved_{kind}_{stage}"
    engine.save_state(saved / "state")
    save_trained(engine, args.model, saved)
    torch.distributed.barrier()
    other = DeepSpeedEngine(lambda: load(saved, kind, resumed=True), config)
    other.load_state(saved / "state")
    for each, name in ((engine, "continued"), (other, "resumed")):
        train(each, config, 2)
        result[name] = weights_of(each)
    return result


def main() -> None:
    """Run one rank through all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("cases", nargs="+", help="kind:stage")
    args = parser.parse_args()
    torch.set_num_threads(1)
    init_distributed(args.rank, args.ranks, "127.0.0.1", args.port, 60.0)
    results = {}
    for case in args.cases:
        kind, stage = case.split(":")
        with sharding_of(kind), muon_in(kind):
            results[case] = run_case(kind, int(stage), args)
    torch.save(results, args.out / f"result_{args.rank}.pt")


if __name__ == "__main__":
    main()
