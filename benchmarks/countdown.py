"""Countdown with three and four numbers: policy and PRM from scratch, then every search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import search_table
import typer
from search_comparison import Models, compare, search, shepherd_prm

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.progress import Progress

CONFIG = common.ROOT / "configs" / "countdown4.yaml"
FOLDER = common.RUNS / "countdown"
BUDGETS = (4, 16, 64)
ALL = 1000
"""Problems of a public test file."""
STAGES = ((3, 800), (4, 1400))
"""The warm start: numbers, and updates of 256 traces each. A stage goes on from the policy of the one before:
three numbers first, since their arithmetic is that of four."""

SHEPHERD = (
    "prm.parameterisation=scalar_head",
    "prm.log_prob=auto",
    "prm.search_score=auto",
    "prm.search_aggregate=min",
    "supervised_prm.labels=math_shepherd_soft",
    "supervised_prm.problems=256",
    "supervised_prm.rollouts_per_problem=4",
    "supervised_prm.completions=8",
)
"""Settings of the PRM on Math-Shepherd labels."""


def main(
    files: Annotated[
        Path | None,
        typer.Option(help="Folder of cd3_test.jsonl and cd4_test.jsonl; without it, problems are generated."),
    ] = None,
    numbers: Annotated[
        list[int] | None, typer.Option(help="3 or 4 (may be repeated); by default both.")
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="Test problems for every algorithm.")] = 1000,
    full: Annotated[
        bool, typer.Option(help="Search all 1,000 problems by the best algorithm at N = 64, too.")
    ] = True,
    shepherd: Annotated[bool, typer.Option(help="Compare with a PRM on Math-Shepherd labels, too.")] = True,
) -> None:
    """Train policy and PRM on Countdown, search with every algorithm at N = 4, 16 and 64, and print the cost.

    Hours on two cores; it has not run from start to end yet (docs/search.md). What is there is used again:
    the same command goes on.
    """
    common.use_all_cores()
    from airls_ray.progress import make_progress

    progress = make_progress()
    figures: dict[str, Any] = {}
    for count in sorted(numbers or (3, 4)):
        figures[f"{count} numbers"] = measure(count, files, problems, full, shepherd, progress)
    path = search_table.write("countdown", figures, progress)
    progress.say(f"written to {path}, .md and .png")


def measure(
    count: int, files: Path | None, problems: int, full: bool, labelled: bool, progress: Progress
) -> dict[str, Any]:
    """All stages for so many numbers; returns what the tables need."""
    models, cost = train(count, files, progress)
    if labelled:
        shepherd, more = shepherd_prm(
            settings(count, files, *SHEPHERD), models.policy, FOLDER / f"math_shepherd{count}", progress
        )
        models, cost = replace(models, shepherd=shepherd), cost | more
    config = settings(count, files, f"search.problems={problems}")
    folder = FOLDER / f"search{count}"
    figures = compare(config, models, BUDGETS, folder / str(problems))
    cost |= {f"search, {scorer}": seconds for scorer, seconds in figures.pop("seconds").items()}
    if full and problems < ALL:
        best = max(
            (row for row in figures["rows"] if row["scorer"] == "prm"), key=lambda row: row["accuracy"]
        )
        whole = settings(count, files, f"search.problems={ALL}")
        summary = search(
            whole, "prm", models.policy, models.prm, [best["algorithm"]], BUDGETS[-1:], folder / "all"
        )
        figures["all_problems"] = summary["algorithms"]
        cost["search, all problems"] = summary["seconds"]["total"]
    return {**figures, "cost_seconds": cost}


def settings(count: int, files: Path | None, *overrides: str) -> Config:
    """The configuration for so many numbers."""
    from airls_ray.config import load_config

    return load_config(
        CONFIG,
        [
            f"name=countdown{count}",
            f"output={FOLDER}",
            f"task.numbers={count}",
            *([f"task.test_file={files / f'cd{count}_test.jsonl'}"] if files else []),
            *overrides,
        ],
    )


# -------------------------------------------------------------------------------------- training
def train(count: int, files: Path | None, progress: Progress) -> tuple[Models, dict[str, float]]:
    """Return policy and PRM, and the seconds that each took."""
    from actors.launch import run_training
    from airls_ray.run_folder import RunFolder

    cost: dict[str, float] = {}
    stage = max(number for number, (numbers, _) in enumerate(STAGES) if numbers == count)
    base, cost["warm start"] = warm_start(stage, files, progress)
    config = settings(count, files, f"model.path={base}", "search.problems=200")
    run = RunFolder(config.output / config.name)
    summary = run.read_summary() or run_training(config, resume=run.config_file.exists())
    cost["PRM"] = sum(summary["seconds"].values())
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    return Models(base, checkpoint / "prm", None), cost


def warm_start(stage: int, files: Path | None, progress: Progress) -> tuple[Path, float]:
    """Return the folder of the policy after a stage of the warm start, and the seconds of all up to it."""
    from actors.sft import run_sft

    count, updates = STAGES[stage]
    folder = FOLDER / f"warm_start_{stage}"
    before, seconds = warm_start(stage - 1, files, progress) if stage else (None, 0.0)
    if not (folder / "sft.json").exists():
        progress.say(f"Warm start {stage + 1} of {len(STAGES)}: {count} numbers")
        source = [f"model.path={before}"] if before else []
        length = [f"sft.iterations={updates}", f"sft.learner.lr_decay_updates={updates}"]
        run_sft(settings(count, files, *source, *length), folder, progress, resume=True)
    return folder, seconds + json.loads((folder / "sft.json").read_text())["seconds"]


if __name__ == "__main__":
    common.run(main)
