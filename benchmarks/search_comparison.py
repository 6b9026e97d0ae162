"""The same problems searched by every algorithm with the PRM, and by some with each of two other scorers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

COMPARED = ("best_of_n", "beam", "rebase", "particle_filter", "mcts")
"""Algorithms that run with every scorer."""


WITHOUT_MODEL = ("policy_log_prob", "oracle")
"""Scorers that need no PRM: the control, and the truth of the steps."""


@dataclass(frozen=True)
class Models:
    """What is searched with."""

    policy: Path
    prms: Mapping[str, Path]
    """PRMs by the name of their scorer; the first searches by every algorithm."""


def compare(
    config: Config,
    models: Models,
    budgets: Sequence[int],
    output: Path,
    others: Sequence[str] = ("policy_log_prob",),
) -> dict[str, Any]:
    """Search `config.search.problems` problems by each PRM and each of `others` (`WITHOUT_MODEL`); what is in
    `output` is used again.

    Returns:
        `rows` (of `airls-ray search`, with `scorer`), `best_of_n` (curves over N from one run, with bounds)
        and `seconds` of each scorer's searches.
    """
    from actors.train.start import connected

    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    curves: dict[str, Any] = {}
    scorers: list[tuple[str, Path | None]] = [*models.prms.items(), *((name, None) for name in others)]
    with connected(config, keep=True):
        for number, (scorer, prm) in enumerate(scorers):
            names = list(COMPARED) if number else every_algorithm()
            summary = search(config, scorer, models.policy, prm, names, budgets, output / scorer)
            rows += [{**row, "scorer": scorer} for row in summary["algorithms"]]
            curves = curves or summary["best_of_n"]
            seconds[scorer] = summary["seconds"]["total"]
    return {"rows": rows, "best_of_n": curves, "seconds": seconds, "problems": config.search.problems}


def shepherd_prm(
    config: Config, policy: Path, folder: Path, progress: Progress
) -> tuple[Path, dict[str, float]]:
    """Train the PRM on Math-Shepherd labels of `policy` once; returns its folder and the seconds it took."""
    from actors.commands.train_prm import train_prm

    done = folder / "train_prm.json"
    made = json.loads(done.read_text()) if done.exists() else train_prm(config, policy, folder, progress)
    seconds = made["seconds"]
    cost = {"Math-Shepherd labels": seconds["labels"], "Math-Shepherd PRM": seconds["train"]}
    return Path(made["prm_path"]), cost


def every_algorithm() -> list[str]:
    """Names of all that need nothing more."""
    from airls_ray.search.registry import ready_searches

    return ready_searches()


def search(
    config: Config,
    scorer: str,
    policy: Path,
    prm: Path | None,
    names: Sequence[str],
    budgets: Sequence[int],
    output: Path,
) -> dict[str, Any]:
    """Search, or read what was searched; returns the summary of `airls-ray search`."""
    from actors.search.search import run_search

    done = output / "summary.json"
    if done.exists():
        summary: dict[str, Any] = json.loads(done.read_text())
        found = {(row["algorithm"], row["budget"]) for row in summary["algorithms"]}
        if found == {(name, budget) for name in names for budget in budgets}:
            return summary
    changes = {
        "algorithms": list(names),
        "budgets": list(budgets),
        "scorer": scorer if scorer in WITHOUT_MODEL else "prm",
    }
    section = type(config.search).model_validate(config.search.model_dump() | changes)
    chosen = config.model_copy(update={"search": section})
    return run_search(chosen, policy, prm, output, resume=output.exists())
