"""Countdown with three and four numbers: policy and PRM from scratch, then every search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import search_table
import typer
from search_comparison import Models, compare, search, shepherd_prm

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

CONFIG = common.ROOT / "configs" / "countdown_search.yaml"
FOLDER = common.RUNS / "countdown"
BUDGETS = (4, 16, 64)
SECOND_PART = (
    "task.traces_per_problem=64",
    "sft.detour_share=0.1",
    "sft.iterations=2000",
    "sft.learner.optimizer=muon",
    "sft.learner.lr_decay_updates=2000",
    "seed=2",
)
"""Settings of the warm start's second part, which goes on from the first with fresh problems, while the rate
falls. A trace is any of a problem's solutions, not the first that the solver finds: of the problems that are
hardest to hit, those with a single one, it begins anywhere. What a step gives was learned from detours by
then; a few keep it, since whoever samples them misses the target on purpose."""
EXPERT = (
    "task.traces_per_problem=64",
    "sft.detour_share=0",
    "sft.iterations=600",
    "sft.learner.optimizer=muon",
    "sft.learner.lr_decay_updates=600",
)
"""Settings of the PRM's start: a language model of the solutions alone, from scratch (log pi_E, the optimum
of AIRL's f). A PRM that starts from the policy learns slowly, probably because the gradient of a logarithm
vanishes where the probability is near 1, as that of most results is under the policy (docs/search.md)."""
ALL = 1000
"""Problems of a public test file."""
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
        list[int] | None,
        typer.Option(help="3 or 4 (may be repeated), the other's figures stay; by default both."),
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="Test problems for every algorithm.")] = 1000,
    full: Annotated[
        bool, typer.Option(help="Search all 1,000 problems by the best algorithm at N = 64, too.")
    ] = True,
    shepherd: Annotated[bool, typer.Option(help="Compare with a PRM on Math-Shepherd labels, too.")] = True,
) -> None:
    """Train policy and PRM on Countdown, search with every algorithm at N = 4, 16 and 64, and print the cost.

    Hours on two cores. What is there is used again: the same command goes on.
    """
    common.use_all_cores()
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    models, cost = train(files, progress)
    if shepherd:
        folder, more = shepherd_prm(
            settings(4, files, *SHEPHERD), models.policy, FOLDER / "math_shepherd", progress
        )
        models = replace(models, prms={**models.prms, "math_shepherd": folder})
        cost |= more
    figures = common.kept_figures("countdown") | {
        f"{count} numbers": measure(count, files, problems, full, models, cost)
        for count in sorted(numbers or (3, 4))
    }
    path = search_table.write("countdown", dict(sorted(figures.items())), progress)
    progress.say(f"written to {path}, .md and .png")


def measure(
    count: int, files: Path | None, problems: int, full: bool, models: Models, cost: Mapping[str, float]
) -> dict[str, Any]:
    """Search problems of so many numbers; returns what the tables need."""
    config = settings(count, files, f"search.problems={problems}")
    figures = compare(config, models, BUDGETS, search_folder(count) / str(problems))
    seconds = {f"search, {scorer}": seconds for scorer, seconds in figures.pop("seconds").items()}
    if full and problems < ALL:
        best = max((row for row in figures["rows"] if row["scorer"] == "prm"), key=accurate_and_cheap)
        summary = search_all(count, files, models, best["algorithm"])
        figures["all_problems"] = summary["algorithms"]
        seconds["search, all problems"] = summary["seconds"]["total"]
    return {**figures, "cost_seconds": {**cost, **seconds}}


def accurate_and_cheap(row: Mapping[str, Any]) -> tuple[float, float]:
    """What the best algorithm has most of: accuracy; of equal ones that with the fewest tokens."""
    return row["accuracy"], -(row["policy_tokens"] + row["prm_tokens"])


def search_all(count: int, files: Path | None, models: Models, algorithm: str) -> dict[str, Any]:
    """Search all public problems at the largest budget by one algorithm."""
    config = settings(count, files, f"search.problems={ALL}")
    output = all_folder(count, algorithm)
    return search(config, "prm", models.policy, models.prms["prm"], [algorithm], BUDGETS[-1:], output)


def search_folder(count: int) -> Path:
    """Where the searches of so many numbers lie."""
    return FOLDER / f"search{count}"


def all_folder(count: int, algorithm: str) -> Path:
    """Where `search_all` leaves its records."""
    return search_folder(count) / f"all_{algorithm}"


def settings(count: int, files: Path | None, *overrides: str) -> Config:
    """The configuration with so many numbers in the test problems; training has both in any case."""
    from airls_ray.config import load_config

    public = [f"{files}/cd{number}_test.jsonl" for number in (3, 4)] if files else []
    return load_config(
        CONFIG,
        [
            f"output={FOLDER}",
            f"task.numbers={count}",
            *(
                [f"task.test_file={files}/cd{count}_test.jsonl", f"task.hold_out_files={public}"]
                if files
                else []
            ),
            *overrides,
        ],
    )


# -------------------------------------------------------------------------------------- training
def train(files: Path | None, progress: Progress, seed: int = 0) -> tuple[Models, dict[str, float]]:
    """Return the policy and the PRM for both counts of numbers, and the seconds that each part took.

    `seed` is that of the PRM: of its start, the expert model, and of its training. The policy is the same.
    """
    from actors.commands.sft import run_sft
    from actors.train.launch import run_training
    from airls_ray.runs.run_folder import RunFolder

    first, base, expert = FOLDER / "first_part", FOLDER / "warm_start", expert_folder(seed)
    cost = {}
    for name, folder, overrides in (
        ("warm start", first, ()),
        ("its second part", base, (f"model.path={first}", *SECOND_PART)),
        ("expert model", expert, (*EXPERT, f"seed={1 + 100 * seed}")),
    ):
        if not (folder / "sft.json").exists():
            run_sft(settings(4, files, *overrides), folder, progress, resume=True)
        cost[name] = json.loads((folder / "sft.json").read_text())["seconds"]
    prm = (f"name={_named('countdown_search', seed)}", f"seed={seed}", f"prm.path={expert}")
    config = settings(4, files, f"model.path={base}", *prm, "search.problems=200")
    run = RunFolder(config.output / config.name)
    summary = run.read_summary() or run_training(config, resume=run.config_file.exists())
    cost["PRM"] = sum(summary["seconds"][part] for part in ("start", "train", "search"))
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    return Models(base, {"prm": checkpoint / "prm"}), cost


def expert_folder(seed: int) -> Path:
    """The model from which the PRM of that seed starts."""
    return FOLDER / _named("expert", seed)


def _named(part: str, seed: int) -> str:
    return f"{part}_seed_{seed}" if seed else part


if __name__ == "__main__":
    common.run(main)
