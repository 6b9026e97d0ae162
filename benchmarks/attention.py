"""Training steps with PyTorch's fused attention and with plain matrix products, on this CPU."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Spread

if TYPE_CHECKING:
    from airls_ray.models.attention import AttentionName
    from airls_ray.models.load import DType
    from airls_ray.models.modules import PolicyModule

CONFIG = common.ROOT / "configs" / "countdown_search.yaml"
LENGTHS = (24, 48, 96, 128, 256, 512)
"""Tokens of a row."""
TOKENS = 2048
"""Of a micro-batch."""
DTYPES: tuple[DType, ...] = ("float32", "bfloat16")
KERNELS: tuple[AttentionName, AttentionName] = ("eager", "sdpa")


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Measurements of each side.")] = 7,
) -> None:
    """Milliseconds of one forward and backward pass, by type of the weights and length of the rows.

    One thread, and the policy of `configs/countdown_search.yaml`, compiled as it is there.
    """
    import torch

    from airls_ray.console.choose import make_progress

    torch.set_num_threads(1)
    progress = make_progress()
    figures: dict[str, Any] = {}
    rows = []
    with progress.track("Training steps", pairs * len(LENGTHS) * len(DTYPES)) as bar:
        for dtype in DTYPES:
            plain, fused = modules(dtype)
            for length in LENGTHS:
                times = common.measure_pairs(
                    partial(step, plain, length), partial(step, fused, length), pairs, bar
                )
                ratio = Spread.of([bare / ours for ours, bare in zip(times.ours, times.bare, strict=True)])
                milliseconds = [Spread.of([1e3 * one for one in side]) for side in (times.ours, times.bare)]
                rows.append((dtype, str(length), *map(str, milliseconds), str(ratio)))
                figures[f"{dtype} {length}"] = {
                    "plain_milliseconds": milliseconds[0].figures(),
                    "fused_milliseconds": milliseconds[1].figures(),
                    "fused_to_plain": ratio.figures(),
                }
    columns = ("weights", "tokens of a row", "plain, ms", "fused, ms", "fused / plain")
    progress.table(f"{TOKENS:,} tokens forward and backward: median (range)", rows, columns)
    progress.say(f"written to {common.write_result('attention', figures)}")


def modules(dtype: DType) -> list[PolicyModule]:
    """The same new policy with each kernel, plain first."""
    from airls_ray.config import load_config
    from airls_ray.models.load import load_policy_module

    config = load_config(CONFIG, [f"model.dtype={dtype}", f"model.context_tokens={LENGTHS[-1]}"])
    with tempfile.TemporaryDirectory() as folder:
        common.new_policy(config, Path(folder))
        both = [load_policy_module(folder, dtype, attention=kernel) for kernel in KERNELS]
    for module in both:
        module.compile_layers()
    return both


def step(module: PolicyModule, length: int) -> float:
    """Seconds of one pass over rows of random tokens."""
    import torch

    count = TOKENS // length
    tokens = torch.randint(2, 12, (count, length), generator=torch.Generator().manual_seed(0))
    places = torch.arange(count * length).view(count, length)
    inputs = {
        "input_ids": tokens,
        "position_ids": torch.arange(length).expand(count, length),
        "predict_index": places[:, :-1].flatten(),
        "targets": tokens[:, 1:].flatten(),
        "attention_mask": torch.ones_like(tokens),
    }

    def run() -> None:
        logprobs, _ = module(**inputs)
        logprobs.sum().backward()
        module.zero_grad(set_to_none=True)

    return common.seconds_of(run)


if __name__ == "__main__":
    common.run(main)
