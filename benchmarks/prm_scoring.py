"""Scoring the children of a search: cached prefixes, whole passes, and vLLM's pooling runner."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Spread

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.prm.prefix_scores import PrefixScorer
    from airls_ray.search.scoring import Continuation

STEP_TOKENS = 32
"""Tokens of a step, and of a block of vLLM's prefix cache (the least that a CPU takes), so that the cache is
of as much use to it as it can be."""


def main(
    problems: Annotated[int, typer.Option(min=1, help="Live problems.")] = 32,
    children: Annotated[int, typer.Option(min=1, help="Children that are scored at each level.")] = 8,
    levels: Annotated[int, typer.Option(min=2, help="Steps of a response.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each side, in turn.")] = 3,
    vllm: Annotated[bool, typer.Option(help="Measure vLLM's pooling runner, too.")] = True,
) -> None:
    """Seconds to score a search level by level with a scalar-head PRM of 4.8 M parameters.

    Three ways: keys and values of the prefixes kept, the whole prefix again, and vLLM's pooling runner with
    its prefix cache. The same continuations on each, one child of each level goes on.
    """
    common.use_all_cores()
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    context = STEP_TOKENS * (levels + 1)
    overrides = [*common.MEDIUM, f"model.context_tokens={context}", "prm.parameterisation=scalar_head"]
    config = load_config(common.CONFIG, [*overrides, "rollout.max_response_tokens=40"])
    folder = common.RUNS / "prm_scoring" / "prm"
    batches = make_levels(problems, children, levels)
    sides: dict[str, Callable[[], float]] = {
        "cached prefixes": scorer_side(scalar_prm(config, folder), config, batches, cached=True),
        "whole prefixes": scorer_side(folder, config, batches, cached=False),
    }
    if vllm:
        sides["vLLM pooling"] = vllm_side(folder, batches, context, progress)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with progress.track("Scoring", repeats * len(sides)) as bar:
        for side in sides.values():
            side()
        for _ in range(repeats):
            for name, side in sides.items():
                seconds[name].append(side())
                bar.advance(1)
    report(seconds, batches, progress)


def make_levels(problems: int, children: int, levels: int) -> list[list[Continuation]]:
    """Random continuations by level: the first child of each problem and level is continued."""
    import numpy as np

    from airls_ray.search.scoring import Continuation

    rng = np.random.default_rng(0)
    prefixes = [tuple(rng.integers(3, 16, STEP_TOKENS).tolist()) for _ in range(problems)]
    made = []
    for _ in range(levels):
        level = []
        for number, prefix in enumerate(prefixes):
            steps = [tuple(rng.integers(3, 16, STEP_TOKENS).tolist()) for _ in range(children)]
            level += [
                Continuation(prefix, step, (STEP_TOKENS,), (0.0,), keep=STEP_TOKENS, problem=number)
                for step in steps
            ]
            prefixes[number] = (*prefix, *steps[0])
        made.append(level)
    return made


def scalar_prm(config: Config, folder: Path) -> Path:
    """A PRM with random weights, its head included."""
    import torch

    from airls_ray.models.load import load_prm_module, save_hf
    from airls_ray.prm.folder import write_prm_form

    common.new_policy(config, folder)
    module = load_prm_module(folder, "scalar_head")
    torch.manual_seed(0)
    torch.nn.init.normal_(module.model.score.weight)
    save_hf(module, None, folder, folder)
    write_prm_form(config.prm, folder)
    return folder


def scorer_side(
    folder: Path, config: Config, batches: list[list[Continuation]], *, cached: bool
) -> Callable[[], float]:
    """Score all levels from an empty cache; returns seconds."""
    import torch

    from airls_ray.models.load import load_prm_module
    from airls_ray.prm.prefix_scores import PrefixScorer

    scorer: PrefixScorer = PrefixScorer(
        load_prm_module(folder, "scalar_head"),
        config.prm,
        temperature=1.0,
        device=torch.device("cpu"),
        cache_tokens=10_000_000 if cached else 0,
    )

    def run() -> float:
        scorer.forget()
        return common.seconds_of(lambda: [scorer.score(level) for level in batches])

    return run


def vllm_side(
    folder: Path, batches: list[list[Continuation]], context: int, progress: Progress
) -> Callable[[], float]:
    """The same by vLLM: all tokens of a sequence go in, its prefix cache saves what it can."""
    from vllm import LLM, PoolingParams

    from actors.rollout.vllm_engine import engine_environment

    for key, value in engine_environment(int(os.environ["OMP_NUM_THREADS"])).items():
        os.environ.setdefault(key, value)
    with progress.phase("Starting vLLM"):
        llm: Any = LLM(
            model=str(folder),
            runner="pooling",
            convert="classify",
            block_size=STEP_TOKENS,
            skip_tokenizer_init=True,
            dtype="float32",
            enforce_eager=True,
            max_model_len=context,
            enable_prefix_caching=True,
            kv_cache_memory_bytes=2**30,
        )
    parameters = PoolingParams(task="token_classify")
    prompts = [[{"prompt_token_ids": [*item.prefix, *item.tokens]} for item in level] for level in batches]

    def run() -> float:
        llm.reset_prefix_cache()
        return common.seconds_of(
            lambda: [
                llm.encode(level, parameters, pooling_task="token_classify", use_tqdm=False)
                for level in prompts
            ]
        )

    return run


def report(seconds: dict[str, list[float]], batches: list[list[Continuation]], progress: Progress) -> None:
    """Print the table, write the result."""
    new = sum(len(item.tokens) for level in batches for item in level)
    prefixes = sum(len(item.prefix) for level in batches for item in level)
    best = seconds["cached prefixes"]
    ratios = {
        name: Spread.of([other / own for own, other in zip(best, values, strict=True)])
        for name, values in seconds.items()
    }
    progress.table(
        f"{sum(map(len, batches)):,} children: {new:,} new tokens behind {prefixes:,} tokens of prefixes",
        [(name, str(Spread.of(values)), str(ratios[name])) for name, values in seconds.items()],
        ("", "seconds", "times the cached"),
    )
    figures = {
        "children": sum(map(len, batches)),
        "new_tokens": new,
        "prefix_tokens": prefixes,
        "seconds": {name: Spread.of(values).figures() for name, values in seconds.items()},
        "ratio": {name: ratio.figures() for name, ratio in ratios.items()},
    }
    progress.say(f"written to {common.write_result('prm_scoring', figures)}")


if __name__ == "__main__":
    common.run(main)
