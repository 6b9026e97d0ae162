"""Live search on puzzles with many right ways: label-free PRM, best labelled PRM, PRM of the truth, controls.

prm_baselines.py chose rate, epoch and aggregation of each PRM on validation problems
    the chosen ones are trained once more and kept as folders
        every algorithm with the label-free one, some with each of the others and without a PRM
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import common
import search_table
import typer
from method_variants import config_path
from prm_baselines import Job, job_of, train, training_of
from prm_recipes import RECIPES
from search_comparison import WITHOUT_MODEL, Models, compare

FOLDER = common.RUNS / "puzzle_search"
SCORERS = {"prm": "airl_s", "repirl": "repirl", "math_shepherd": "soft_ratio", "step_truth": "truth_ratio"}
"""Recipes of `prm_recipes.py`: two without labels, one of sampled labels, the better of the true steps."""
TASKS = ("quantum_lock", "word_ladder")
THREADS = 2


def main(
    task: Annotated[list[str] | None, typer.Option(help="Only this puzzle (may be repeated).")] = None,
    problems: Annotated[int, typer.Option(min=1, help="Test problems.")] = 100,
    training_problems: Annotated[
        int, typer.Option(min=16, help="Training problems of the PRMs, as in prm_baselines.py.")
    ] = 384,
    budget: Annotated[list[int] | None, typer.Option(help="Width N (may be repeated).")] = None,
) -> None:
    """Search with the base policy of each puzzle by every algorithm and compare the scorers at equal width.

    About an hour a puzzle on two cores after `prm_baselines.py`; what is there is used again, and
    puzzles that are not asked for keep their figures.
    """
    common.use_all_cores(THREADS)
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    sizes = {"problems": training_problems, "completions": 4, "epochs": 3}
    figures = common.kept_figures("puzzle_search")
    for name in task or TASKS:
        job = job_of(name, sizes, THREADS, progress)
        folder = FOLDER / job.folder.name
        prms = {scorer: kept_prm(job, recipe, folder) for scorer, recipe in SCORERS.items()}
        config = load_config(config_path(name), [f"search.problems={problems}"])
        found = compare(
            config, Models(job.base, prms), budget or [4, 16, 64], folder / str(problems), WITHOUT_MODEL
        )
        cost = {f"search, {scorer}": seconds for scorer, seconds in found.pop("seconds").items()}
        figures[name] = {**found, "cost_seconds": cost}
        path = search_table.write("puzzle_search", figures, progress)
        progress.say(f"written to {path}, .md and .png")


def kept_prm(job: Job, name: str, folder: Path) -> Path:
    """Folder of the PRM of a recipe at the settings that were best on the validation problems."""
    from airls_ray.models.load import save_hf
    from airls_ray.prm.folder import write_prm_form

    kept = folder / "prms" / name
    done = kept / "settings.json"
    if done.exists():
        return kept
    recipe = next(one for one in RECIPES if one.name == name)
    best = train(job, recipe, 0)
    config, engine, training = training_of(job, recipe, best["rate"], 0)
    with job.progress.track(f"{name} once more", best["epoch"]) as bar:
        for epoch in range(1, best["epoch"] + 1):
            for rows in training.plan(epoch):
                training.update(rows)
            bar.advance(1)
    save_hf(engine.module, None, job.base, kept)
    write_prm_form(config.prm.model_copy(update={"search_aggregate": best["aggregate"]}), kept)
    done.write_text(json.dumps({key: best[key] for key in ("rate", "epoch", "aggregate")}))
    return kept


if __name__ == "__main__":
    common.run(main)
