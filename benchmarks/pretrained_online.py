"""The whole loop on a pretrained model: warm start, then AIRL-S and GRPO from it at equal rollouts.

    python benchmarks/pretrained_online.py --model DIR    # a folder, or a name of the hub

    SmolLM2-135M-Instruct on chains of modular arithmetic
        supervised on chains until it is sometimes right
        AIRL-S, GRPO: the same iterations, PRM warm-up counted; sampled accuracy and PRM on test problems

It shows that policy and PRM of a real checkpoint learn together; a few hundred rollouts say nothing on which
method is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from uses import gains, outcome_curve, train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

CONFIG = common.ROOT / "configs" / "arithmetic_smollm2.yaml"
FOLDER = common.RUNS / "pretrained_online"
METHODS = {"airl_s": "AIRL-S", "grpo": "GRPO"}


def main(
    model: Annotated[str, typer.Option(help="Folder or hub name of the model.")] = "",
    iterations: Annotated[int, typer.Option(min=4, help="Of each run, PRM warm-up included.")] = 15,
    problems: Annotated[int, typer.Option(min=2, help="Test problems, with eight samples each.")] = 100,
) -> None:
    """Warm-start a pretrained model, then train it by AIRL-S and by GRPO.

    About an hour on two cores; interrupted, the same command goes on.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    given = [f"model.path={model}"] if model else []
    base, warm_start = warm_started(settings("warm_start", *given), progress)
    figures: dict[str, Any] = {"warm_start": warm_start, "iterations": iterations, "problems": problems}
    with connected(settings("warm_start", *given), keep=True):
        for method in METHODS:
            more = (f"model.path={base}", f"method={method}", f"search.problems={problems}")
            config = settings(method, *more)
            updates = {"iterations": iterations - config.warmup_iterations}
            config = config.model_copy(update={"train": config.train.model_copy(update=updates)})
            figures[method] = run(config, progress)
            path = common.write_result("pretrained_online", figures)
    show(figures, progress)
    progress.say(f"written to {path}")


def settings(name: str, *overrides: str) -> Config:
    """The configuration of a run."""
    from airls_ray.config import load_config

    return load_config(CONFIG, [f"name={name}", f"output={FOLDER}", *overrides])


def warm_started(config: Config, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """The warm-started policy, made once, and what its training says of it."""
    import json

    from actors.commands.sft import run_sft

    folder = FOLDER / "warm_start"
    file = folder / "sft.json"
    summary = (
        json.loads(file.read_text()) if file.exists() else run_sft(config, folder, progress, resume=True)
    )
    return folder, {key: summary[key] for key in ("accuracy", "updates", "tokens", "seconds", "curve")}


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Train (or take what is there); accuracy before and after, the PRM's figures, the outcome's curve."""
    summary, folder = train(config, progress)
    kept = ("accuracy", "prm", "policy_log_prob", "search", "search_base", "seconds")
    curve = outcome_curve(folder)
    return {
        **{key: summary[key] for key in kept if key in summary},
        "gain": gains(summary),
        "outcome": [curve[at] for at in sorted(curve)],
    }


def show(figures: Mapping[str, Any], progress: Progress) -> None:
    """A row each for the methods."""
    rows = []
    for name, label in METHODS.items():
        found, half = figures[name], max(1, len(figures[name]["outcome"]) // 2)
        outcome = found["outcome"]
        first, last = sum(outcome[:half]) / half, sum(outcome[-half:]) / half
        rows.append((label, found["gain"]["base"], found["gain"]["trained"], first, last))
    columns = ("from one warm start", "test, before", "after", "outcome, first half", "second half")
    progress.table("A pretrained model through the loop", rows, columns)


if __name__ == "__main__":
    common.run(main)
