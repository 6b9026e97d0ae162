"""The step of an output layer with all logits at once and in chunks: memory and time, on this CPU."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import common
import typer
from common import Spread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from airls_ray.models.load import DType
    from airls_ray.models.token_logprobs import TokenReader

Side = Literal["whole", "chunks", "checkpoints"]
SIDES: dict[int, tuple[Side, ...]] = {
    49_152: ("whole", "chunks", "checkpoints"),
    152_064: ("whole", "chunks"),
}
"""By the size of the vocabulary: SmolLM2's, and that of Qwen2.5 from 7B on."""
DTYPES: tuple[DType, ...] = ("float32", "bfloat16")
HIDDEN = 576
"""SmolLM2-135M's."""
CHUNK_MIB = 128
"""Small, since a learner's default is more than these tokens have."""
Figures = tuple[float, float]
"""(GiB, seconds) of a step."""


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Measurements of each side.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, help="Of the micro-batch.")] = 2048,
) -> None:
    """Memory and processor seconds of the log-probabilities, entropies and gradients of a micro-batch.

    All logits at once, chunks as the learners compute them, and (with the smaller vocabulary) a
    `torch.utils.checkpoint` of each chunk, in turns, each step in a new process with one thread. Memory is
    what the step takes beside weights and hidden states.
    """
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    figures: dict[str, Any] = {}
    rows = []
    count = pairs * len(DTYPES) * sum(map(len, SIDES.values()))
    with progress.track("Steps", count) as bar:
        for dtype in DTYPES:
            for vocabulary, sides in SIDES.items():
                found: dict[Side, list[Figures]] = {side: [] for side in sides}
                for _ in range(pairs):
                    for side in sides:
                        found[side].append(in_new_process(side, dtype, vocabulary, tokens))
                        bar.advance(1)
                figures[f"{dtype} {vocabulary}"] = summary(found)
                rows += [(dtype, f"{vocabulary:,}", *row) for row in table(found)]
    columns = ("weights", "vocabulary", "logits", "GiB", "seconds", "seconds / whole")
    progress.table(f"{tokens:,} tokens, chunks of {CHUNK_MIB} MiB: median (range)", rows, columns)
    figures["tokens"] = tokens
    progress.say(f"written to {common.write_result('logits', figures)}")


def summary(found: dict[Side, list[Figures]]) -> dict[str, Any]:
    """Spreads of each side, as they are written."""
    return {
        side: {"gib": memory.figures(), "seconds": seconds.figures(), "seconds_to_whole": ratio.figures()}
        for side, memory, seconds, ratio in spreads(found)
    }


def table(found: dict[Side, list[Figures]]) -> list[tuple[str, ...]]:
    """Rows of each side, as they are shown."""
    return [(side, str(memory), str(seconds), str(ratio)) for side, memory, seconds, ratio in spreads(found)]


def spreads(found: dict[Side, list[Figures]]) -> Iterator[tuple[Side, Spread, Spread, Spread]]:
    """Yield (side, GiB, seconds, seconds over those of the whole in the same turn)."""
    for side, steps in found.items():
        memory, seconds = zip(*steps, strict=True)
        ratios = [one[1] / whole[1] for one, whole in zip(steps, found["whole"], strict=True)]
        yield side, Spread.of(memory), Spread.of(seconds), Spread.of(ratios)


def in_new_process(side: Side, dtype: DType, vocabulary: int, tokens: int) -> Figures:
    """A step's memory and time, unspoilt by what another left behind."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step, side, dtype, vocabulary, tokens).result()


def step(side: Side, dtype: DType, vocabulary: int, tokens: int) -> Figures:
    """Run one forward and backward pass of an output layer on random numbers, as a policy update does."""
    import torch

    from airls_ray.models.logits import LogitForm
    from airls_ray.models.token_logprobs import TokenReader

    torch.set_num_threads(1)
    layer = torch.nn.Linear(HIDDEN, vocabulary, bias=False, dtype=getattr(torch, dtype))
    hidden = torch.randn(tokens, HIDDEN, dtype=layer.weight.dtype, requires_grad=True)
    targets = torch.randint(0, vocabulary, (tokens,))
    read = TokenReader(LogitForm(), entropy=True, entropy_gradient=False)
    before, start = resident_bytes(), time.process_time()
    parts = logprobs_of(side, layer, hidden, targets, read)
    torch.cat(list(parts)).sum().backward()
    seconds = time.process_time() - start
    return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**30, seconds


def logprobs_of(
    side: Side, layer: nn.Linear, hidden: Tensor, targets: Tensor, read: TokenReader
) -> Iterable[Tensor]:
    """Log-probabilities, in one part or by chunks."""
    from torch.utils.checkpoint import checkpoint

    from airls_ray.config.model_sections import logit_chunk_tokens
    from airls_ray.models.token_logprobs import read_in_chunks

    size = logit_chunk_tokens(layer.out_features, CHUNK_MIB) or targets.numel()
    if side == "whole":
        yield read(layer, hidden, targets)[0]
    elif side == "chunks":
        yield read_in_chunks(layer, hidden, targets, read, size)[0]
    else:
        for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            yield checkpoint(read, layer, part, wanted, use_reentrant=False)[0]


def resident_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    common.run(main)
