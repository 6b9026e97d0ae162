"""A learner on one GPU: speed beside a plain loop, layouts, chunked logits, accuracy in bfloat16, memory.

    random weights in a published shape, rollouts of random tokens with a heavy tail of lengths
        update_policy      against a plain loop: tokens/s, and the share of the GPU's own matrix products
        padded rows        against rows packed in one line, by each kernel of attention that is there
        logits in chunks   against all at once: GiB and seconds
        whole rows         against one token at a time with a cache, as an engine samples: nats
        the peak of a step against what the planner says

torch, transformers and what airls_ray itself imports are enough: no Ray, no vLLM, no DeepSpeed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import gpu_parts
import typer
from common import Spread
from policy_learner import Lists, PlainLoop

if TYPE_CHECKING:
    import torch

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.learning.engine import TorchEngine
    from airls_ray.planning.shapes import ModelShape

SHAPE = "Qwen/Qwen2.5-1.5B-Instruct"
CONFIG = common.ROOT / "configs" / "grpo_arithmetic.yaml"


@dataclass(frozen=True)
class Job:
    """What all measurements share."""

    shape: ModelShape
    folder: Path
    """Of the model, random weights in bfloat16."""
    device: torch.device
    config: Config
    rows: int
    longest: int
    """Rollouts of an update, and tokens of the longest response."""
    pairs: int
    progress: Progress


def main(
    shape: Annotated[str, typer.Option(help="One of the planner's published shapes, or tiny.")] = SHAPE,
    device: Annotated[str, typer.Option(help="cuda; cpu only to try the command.")] = "cuda",
    rows: Annotated[int, typer.Option(min=8, help="Rollouts of an update.")] = 64,
    longest: Annotated[int, typer.Option(min=16, help="Tokens of the longest response.")] = 2048,
    tokens: Annotated[int, typer.Option(min=64, help="Of a micro-batch.")] = 16384,
    pairs: Annotated[int, typer.Option(min=1, help="Measurements of each side.")] = 3,
) -> None:
    """Measure the learner on this machine's GPU; some minutes. Without a GPU it says so and does nothing."""
    import torch

    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    if device == "cuda" and not torch.cuda.is_available():
        progress.say(
            "Skipped: PyTorch sees no GPU on this machine (--device cpu --shape tiny tries the command)"
        )
        return
    found, where = gpu_parts.shape_named(shape), torch.device(device)
    overrides = [f"policy.tokens_per_microbatch={tokens}", "policy.gradient_checkpointing=true"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gpu_parts.write_model(found, folder, torch.device(device))
        job = Job(
            found,
            folder,
            torch.device(device),
            load_config(CONFIG, overrides),
            rows,
            longest,
            pairs,
            progress,
        )
        figures: dict[str, Any] = {
            "shape": shape, "parameters": found.parameters, "device": gpu_parts.device_name(where),
            "matmul_tflops": gpu_parts.matmul_tflops(where),
        }  # fmt: skip
        for part, measure in PARTS.items():
            gpu_parts.release(where)
            figures[part] = measure(job, figures)
            if device != "cpu":
                common.write_result("gpu", figures)  # after each, so that a machine that ends leaves some
    progress.say(f"measured on {figures['device']}, {figures['matmul_tflops']:.3g} TFLOP/s in plain products")


# ---------------------------------------------------------------------------------------- measurements
def learner(job: Job, figures: dict[str, Any]) -> dict[str, Any]:
    """Tokens/s of `update_policy` and of a plain loop, and how much of the GPU's products each reaches."""
    from airls_ray.learning.policy import update_policy
    from airls_ray.planning.costs import update_flops

    config = job.config
    table = gpu_parts.random_rollouts(job.rows, job.longest, job.shape.vocab)
    advantages = gpu_parts.random_advantages(table)
    lengths = gpu_parts.lengths_of(table)
    ours = engine_of(job)

    def learn() -> None:
        update_policy(
            ours, table, advantages, None, config.method, config.policy, temperature=1.0,
            max_response_tokens=job.longest, pad_id=0,
        )  # fmt: skip

    plain = PlainLoop(job.folder, config, 0, dtype="bfloat16", device=job.device)
    lists = Lists.of(table, advantages)
    speed = partial(gpu_parts.per_second, job.device, lengths.sum())
    with job.progress.track("Updates", job.pairs) as bar:
        pairs = common.measure_pairs(
            partial(speed, learn), partial(speed, partial(plain.update, lists)), job.pairs, bar
        )
    context = float((lengths**2).sum() / lengths.sum())
    flops = update_flops(job.shape, 1.0, context, checkpointing=False)
    found = {
        "tokens": int(lengths.sum()),
        "update_policy_tokens_per_second": Spread.of(pairs.ours).figures(),
        "plain_loop_tokens_per_second": Spread.of(pairs.bare).figures(),
        "ratio": pairs.ratio.figures(),
        "model_tflops": flops * Spread.of(pairs.ours).median / 1e12,
    }
    found["share_of_matmul"] = found["model_tflops"] / figures["matmul_tflops"]
    job.progress.say(
        f"learner {Spread.of(pairs.ours)} tokens/s, plain loop {Spread.of(pairs.bare)}: {pairs.ratio}; "
        f"{found['share_of_matmul']:.2f} of plain products (recomputed activations not counted)"
    )
    return found


def layouts(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """Tokens/s of a pass over the same rows, padded and packed, by each kernel of attention."""
    from airls_ray.errors import ModelError
    from airls_ray.models.attention import Machine, check_attention, set_attention

    table = gpu_parts.random_rollouts(job.rows, job.longest, job.shape.vocab)
    module = engine_of(job).module
    budget = job.config.policy.tokens_per_microbatch
    found: dict[str, Any] = {}
    for layout, kernel in gpu_parts.LAYOUTS:
        try:
            check_attention(kernel, Machine.here())
        except ModelError as error:
            found[f"{layout} {kernel}"] = {"left_out": str(error)}
            continue
        set_attention(module.model, kernel)
        speeds = gpu_parts.pass_speeds(module, table, layout, budget, job.device, job.pairs)
        found[f"{layout} {kernel}"] = Spread.of(speeds).figures()
        job.progress.say(f"{layout} rows by {kernel}: {Spread.of(speeds)} tokens/s")
    return found


def logits(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """GiB and seconds of the output layer's step, with all logits at once and in chunks."""
    from airls_ray.models.modules import PolicyModule

    model = engine_of(job).module.model
    chunk = job.config.policy.logit_chunk_mib
    tokens = job.config.policy.tokens_per_microbatch
    found: dict[str, Any] = {"tokens": tokens, "chunk_mib": chunk}
    for name, size in (("whole", 0), ("chunks", chunk)):
        module = PolicyModule(model, logit_chunk_mib=size)
        found[name] = gpu_parts.logit_step(module, tokens, job.shape, job.device, job.pairs)
        job.progress.say(f"logits of {tokens:,} tokens, {name}: {found[name]}")
    return found


def accuracy(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """|nats| between whole rows, one token at a time with a cache, and both in fp32."""
    table = gpu_parts.random_rollouts(8, min(job.longest, 256), job.shape.vocab)
    found = gpu_parts.differences(job.folder, table, job.device)
    for name, (mean, largest) in found.items():
        job.progress.say(f"{name.replace('_', ' ')}: mean {mean:.2g}, at most {largest:.2g} nats")
    return {name: {"mean": mean, "max": largest} for name, (mean, largest) in found.items()}


def memory(job: Job, _: dict[str, Any]) -> dict[str, Any]:
    """GiB of a micro-batch's forward and backward pass above the states, measured and planned."""
    from airls_ray.planning.memory import GIB, LOGITS_ENTROPY, learner_memory

    learner = job.config.policy
    context = learner.tokens_per_microbatch
    planned = learner_memory(
        job.shape, job.shape.parameters, learner, dtype="bfloat16", context_tokens=job.longest,
        logit_bytes=LOGITS_ENTROPY, on_gpu=True,
    )  # fmt: skip
    measured = gpu_parts.peak_of_a_pass(engine_of(job).module, context, job.longest, job.shape, job.device)
    found = {
        "planned_gib": (planned.activations + planned.logits) / GIB,
        "measured_gib": None if measured is None else measured / GIB,
    }
    job.progress.say(f"activations and logits of a micro-batch of {context:,} tokens, GiB: {found}")
    return found


PARTS = {
    "learner": learner, "layouts": layouts, "logits": logits, "accuracy": accuracy, "memory": memory,
}  # fmt: skip


def engine_of(job: Job) -> TorchEngine:
    """A learner in plain PyTorch, as large and with the same settings as one of a run."""
    from airls_ray.learning.engine import TorchEngine
    from airls_ray.models.load import load_policy_module

    learner = job.config.policy
    module = load_policy_module(
        job.folder,
        "bfloat16",
        gradient_checkpointing=learner.gradient_checkpointing,
        logit_chunk_mib=learner.logit_chunk_mib,
    )
    return TorchEngine(module.to(job.device), learner)


if __name__ == "__main__":
    common.run(main)
