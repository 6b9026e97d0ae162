"""One rank of the DeepSpeed tests, run as a process: updates on fixed tables, results to a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from actors.deepspeed_engine import DeepSpeedEngine, init_distributed
from airls_ray.config.schema import LearnerConfig, MethodConfig, PRMConfig
from airls_ray.learning.batches import merge_parts, token_logprobs
from airls_ray.learning.engine import FrozenEngine, TrainEngine
from airls_ray.learning.policy import update_policy
from airls_ray.learning.prm_batch import PRMSource, build_prm_batch
from airls_ray.learning.prm_update import update_prm
from airls_ray.models.load import load_policy_module, load_prm_module, save_hf
from tests.tiny import make_rollouts, make_traces

Weights = dict[str, torch.Tensor]


def learner(stage: int = 0, ranks: int = 1) -> LearnerConfig:
    """Small micro-batches, so that gradients accumulate and some rank runs out of rows."""
    return LearnerConfig(
        learning_rate=1e-3,
        lr_warmup_updates=3,
        gradient_clip=0.05,
        tokens_per_microbatch=40,
        ranks=ranks,
        zero_stage=stage,
    )


def train(engine: TrainEngine, config: LearnerConfig, updates: int = 3) -> list[dict[str, float]]:
    """Policy updates on fixed rollouts; the advantages are the outcomes less 1/2."""
    table = make_rollouts(3, 3)
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
    return [update_prm(engine, batch, prm, temperature=1.0, pad_id=0, updates=3)]


def weights_of(engine: TrainEngine) -> Weights:
    """Copies of all weights."""
    return {name: weight.clone() for name, weight in engine.named_weights()}


def run_case(kind: str, stage: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train by one kind and ZeRO stage."""
    config = learner(stage, args.ranks)
    if kind == "prm":
        engine = DeepSpeedEngine(lambda: load_prm_module(args.model, "scalar_head"), config)
        return {"metrics": train_prm(engine, config, args.model), "weights": weights_of(engine)}
    if kind == "bf16":
        engine = DeepSpeedEngine(lambda: load_policy_module(args.model, "bfloat16"), config)
        return {"metrics": train(engine, config), "weights": weights_of(engine)}
    engine = DeepSpeedEngine(lambda: load_policy_module(args.model), config)
    result = {"metrics": train(engine, config), "weights": weights_of(engine)}
    part = token_logprobs(engine, make_rollouts(3, 3), temperature=1.0, tokens_per_microbatch=40, pad_id=0)
    result["rows"] = part["row"].to_pylist()
    saved = args.out / f"saved_{stage}"
    engine.save_state(saved / "state")
    if args.rank == 0:
        save_hf(engine.module, result["weights"], args.model, saved)
    torch.distributed.barrier()
    other = DeepSpeedEngine(lambda: load_policy_module(saved), config)
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
        results[case] = run_case(kind, int(stage), args)
    torch.save(results, args.out / f"result_{args.rank}.pt")


if __name__ == "__main__":
    main()
