"""One rank of the DeepSpeed tests, run as a process: updates on fixed tables, results to a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from tiny import make_rollouts, make_traces

from actors.deepspeed_engine import DeepSpeedEngine, init_distributed
from airls_ray.config.schema import LearnerConfig, MethodConfig, PRMConfig
from airls_ray.learning.batches import merge_parts, token_logprobs
from airls_ray.learning.discriminator import update_prm
from airls_ray.learning.engine import TorchEngine, TrainEngine
from airls_ray.learning.policy import update_policy
from airls_ray.learning.prm_batch import PRMSource, build_prm_batch
from airls_ray.models.load import load_policy_module, load_prm_module


def learner(stage: int, ranks: int) -> LearnerConfig:
    """Small micro-batches, so that gradients accumulate and some rank runs out of rows."""
    return LearnerConfig(
        learning_rate=1e-3,
        lr_warmup_updates=3,
        gradient_clip=0.5,
        tokens_per_microbatch=40,
        ranks=ranks,
        zero_stage=stage,
    )


def train(engine: TrainEngine, config: LearnerConfig, updates: int) -> list[dict[str, float]]:
    """Policy updates on fixed rollouts; the advantages are the outcomes."""
    table = make_rollouts(3, 3)
    advantages = table["outcome"].to_pylist()
    steps = [[a - 0.5] * len(e) for a, e in zip(advantages, table["step_ends"].to_pylist(), strict=True)]
    column = pa.array(steps, pa.list_(pa.float32()))
    options = {"temperature": 1.0, "max_response_tokens": 8, "pad_id": 0}
    return [
        update_policy(engine, table, column, None, MethodConfig(name="grpo"), config, **options)
        for _ in range(updates)
    ]


def train_prm(engine: TrainEngine, config: LearnerConfig) -> list[dict[str, float]]:
    """PRM updates on fixed sequences."""
    traces = make_traces(3)
    part = token_logprobs(engine_of_zeros(), traces, temperature=1.0, tokens_per_microbatch=99, pad_id=0)
    prm = PRMConfig(parameterisation="scalar_head", learner=config.model_dump())
    batch = build_prm_batch([PRMSource(make_rollouts(3, 3), traces, merge_parts([part]))], prm)
    return [update_prm(engine, batch, prm, temperature=1.0, pad_id=0, updates=2)]


FOLDER = Path()


def engine_of_zeros() -> TorchEngine:
    """The policy that the traces' log-probabilities come from."""
    return TorchEngine(load_policy_module(FOLDER), LearnerConfig())


def main() -> None:
    """Run one rank."""
    global FOLDER
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--kind", default="policy")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    FOLDER = args.model
    torch.set_num_threads(1)
    init_distributed(args.rank, args.ranks, "127.0.0.1", args.port, 60.0)
    config = learner(args.stage, args.ranks)

    def make(folder: Path) -> DeepSpeedEngine:
        if args.kind == "prm":
            return DeepSpeedEngine(lambda: load_prm_module(folder, "scalar_head"), config)
        return DeepSpeedEngine(lambda: load_policy_module(folder, args.dtype), config)

    engine = make(args.model)
    if args.kind == "prm":
        metrics = train_prm(engine, config)
    else:
        metrics = train(engine, config, 3)
    result = {"metrics": metrics, "weights": {name: w.clone() for name, w in engine.named_weights()}}
    if args.kind == "resume":
        engine.save_state(args.out / "state")
        result |= resume(args, engine, make, result["weights"], config)
    if args.rank == 0:
        torch.save(result, args.out / "result.pt")


def resume(args: argparse.Namespace, engine: DeepSpeedEngine, make, weights, config: LearnerConfig) -> dict:
    """Continue in the same engine and in one made from the saved model and state."""
    from airls_ray.models.load import save_hf

    saved = args.out / "saved"
    if args.rank == 0:
        save_hf(engine.module, weights, args.model, saved)
    torch.distributed.barrier()
    other = make(saved)
    other.load_state(args.out / "state")
    train(engine, config, 1)
    train(other, config, 1)
    return {
        "continued": {name: w.clone() for name, w in engine.named_weights()},
        "resumed": {name: w.clone() for name, w in other.named_weights()},
    }


if __name__ == "__main__":
    main()
