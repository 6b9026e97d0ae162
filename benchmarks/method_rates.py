"""The policy's learning rate of each method on a puzzle: an equal grid, chosen on validation problems."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from method_variants import METHODS, PUZZLES, Variant

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

RATES = (5.0e-5, 1.0e-4)
UNTUNED = 1.0e-4
"""Where the grid was not run: of each method on `quantum_lock` within 0.01 of its best."""
RECORDS = common.RESULTS / "method_rates.jsonl"
"""A line a finished run, committed."""
FOLDER = common.RUNS / "method_rates"
SEED = 0
VALIDATION = (
    # Test problems behind those of the final figures, which `search` and the table have.
    "task.test_problems=400",
    "train.evaluate_every=10",
    "train.evaluation.problems=200",
    "train.evaluation.skip=200",
    "train.evaluation.samples=8",
    "search.problems=8",
    "search.samples=2",
)


def main(
    task: Annotated[list[str], typer.Option(help="Puzzle (may be repeated).")] = list(PUZZLES),  # noqa: B006
    only: Annotated[list[str] | None, typer.Option(help="Only this variant (may be repeated).")] = None,
    minutes: Annotated[float, typer.Option(help="Start no further run after this many minutes.")] = 1e9,
) -> None:
    """Train every method at every rate with seed 0 and note its accuracy on the validation problems.

    Five to eight minutes a run on two cores; interrupted, the same command goes on from the records.
    """
    import time

    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    until = time.monotonic() + 60 * minutes
    wanted = [
        (name, one, rate)
        for name in task
        for rate in RATES
        for one in METHODS
        if not only or one.name in only
    ]
    known = {record["key"] for record in read_records()}
    missing = [each for each in wanted if key_of(rate_config(*each)) not in known]
    progress.say(f"{len(wanted)} runs, of which {len(missing)} are missing")
    if missing:
        with connected(load_config(common.CONFIG), keep=True):
            for number, (name, one, rate) in enumerate(missing):
                if time.monotonic() > until:
                    progress.say(f"{len(missing) - number} runs are left for another time")
                    break
                progress.say(f"Run {number + 1} of {len(missing)}: {one.label} on {name} at {rate:g}")
                record = run(name, one, rate, progress)
                with RECORDS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                progress.say(f"{record['validation']}")


def chosen(task: str, name: str) -> tuple[str, ...]:
    """The override of the rate that a method has on a puzzle: the best of its grid at the end of training.

    Where the grid was not run it is `UNTUNED`, and none for tasks and variants that have no grid.
    """
    if task not in PUZZLES or name not in {one.name for one in METHODS}:
        return ()
    grid = {
        one["rate"]: list(one["validation"].values())[-1]
        for one in read_records()
        if (one["task"], one["variant"]) == (task, name)
    }
    best = max(grid, key=lambda rate: grid[rate]) if set(grid) == set(RATES) else UNTUNED
    return (f"policy.learning_rate={best:g}",)


def read_records() -> list[dict[str, Any]]:
    """Finished runs."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def rate_config(task: str, one: Variant, rate: float) -> Config:
    """Configuration of a run of the grid; the base policy and the PRM are filled in when it starts."""
    import methods

    config = methods.run_config(task, SEED, one, None, (*VALIDATION, f"policy.learning_rate={rate:g}"))
    return config.model_copy(update={"name": f"{one.name}_rate_{rate:g}", "output": FOLDER / task})


def key_of(config: Config) -> str:
    """As of a run of `methods.py`."""
    import methods

    return methods.key_of(config)


def run(task: str, one: Variant, rate: float, progress: Progress) -> dict[str, Any]:
    """Train once; returns the record."""
    import methods

    config = rate_config(task, one, rate)
    _, folder, _ = methods.trained(task, one, config, progress)
    name = "evaluation/accuracy"
    accuracies = {line["iteration"]: round(line[name], 4) for line in folder.read_metrics() if name in line}
    return {
        "key": key_of(config),
        "task": task,
        "variant": one.name,
        "rate": rate,
        "validation": accuracies,
    }


if __name__ == "__main__":
    common.run(main)
