"""Which search with which scorer: the demo's policy, accuracy at equal policy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import common
import search_table
import typer
from search_comparison import Models, compare, shepherd_prm

RUN = common.ROOT / "runs" / "demo_arithmetic"
FOLDER = common.RUNS / "search_curves"
SHEPHERD = common.ROOT / "configs" / "arithmetic_train_prm.yaml"


def main(
    run: Annotated[Path, typer.Option(help="Run folder of the demo.")] = RUN,
    problems: Annotated[int, typer.Option(min=1, help="Test problems.")] = 200,
    budget: Annotated[list[int] | None, typer.Option(help="Width N (may be repeated): 4, 16.")] = None,
) -> None:
    """Search with the demo's base policy by every algorithm, guided by the PRM that the demo learned.

    The control is the policy's own log-probability; the rival is a PRM on Math-Shepherd labels, which is
    trained first. Half an hour after `make demo`; what is there is used again.
    """
    common.use_all_cores()
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress
    from airls_ray.errors import ModelError
    from airls_ray.runs.run_folder import RunFolder

    progress = make_progress()
    checkpoint = RunFolder(run).latest_checkpoint()
    if checkpoint is None or not (run / "sft").is_dir():
        raise ModelError(f"{run} has no policy to search with: run `make demo` first, or give --run")
    policy, prm = run / "sft", checkpoint / "prm"
    shepherd, cost = shepherd_prm(load_config(SHEPHERD), policy, FOLDER / "math_shepherd", progress)
    config = load_config(common.CONFIG, [f"search.problems={problems}"])
    output = FOLDER / f"{run.name}_{problems}"
    figures = compare(
        config, Models(policy, {"prm": prm, "math_shepherd": shepherd}), budget or [4, 16], output
    )
    figures["cost_seconds"] = {**cost, **{f"search, {name}": s for name, s in figures.pop("seconds").items()}}
    path = search_table.write("search_curves", {"arithmetic": figures}, progress)
    progress.say(f"written to {path}, .md and .png")


if __name__ == "__main__":
    common.run(main)
