"""PRMs on puzzles with many right ways, tuned alike: without labels, from labels, from the truth.

    base policy -> rollouts of training problems -> outcomes, completions of prefixes, truth of steps
        each PRM at every rate and epoch and aggregation -> the best on validation problems
            -> choosing among 16 samples of test problems, AUROC over all and within problems

Sampling runs on the rollout workers; training runs in this process, by the updates of `airls-ray train-prm`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import prm_table
import typer
from method_variants import PUZZLES, config_path
from prm_figures import controls, measure
from prm_recipes import RECIPES, TRACES, Recipe
from prm_samples import ROLLOUTS, SAMPLES, Samples, sample

if TYPE_CHECKING:
    import pyarrow as pa

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "prm_baselines"


@dataclass(frozen=True)
class Job:
    """What the training of all PRMs of a task shares."""

    task: str
    base: Path
    samples: Samples
    epochs: int
    folder: Path
    progress: Progress


def main(
    task: Annotated[list[str] | None, typer.Option(help="Only this task (may be repeated).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this PRM (may be repeated).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of the training: 0, 1, ...")] = 1,
    problems: Annotated[int, typer.Option(min=16, help="Training problems, with 8 rollouts each.")] = 384,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of a PRM.")] = 3,
    completions: Annotated[int, typer.Option(min=1, help="Of each prefix, for Monte Carlo labels.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 2,
) -> None:
    """Train every PRM on the same rollouts of one base policy, and let each choose among 16 samples.

    About half an hour a task and seed on two cores. Finished PRMs are kept under
    runs/benchmarks/prm_baselines, and the command goes on from them. Tasks that are not asked for keep their
    figures.
    """
    common.use_all_cores(threads)
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    sizes = {"problems": problems, "completions": completions, "epochs": epochs}
    recipes = [one for one in RECIPES if not only or one.name in only]
    figures = {"tasks": common.kept_figures("prm_baselines").get("tasks", {})}
    for name in task or PUZZLES:
        found = run_task(name, recipes, range(seeds), sizes, threads, progress)
        figures["tasks"][name] = {"sizes": {**sizes, "rollouts": problems * ROLLOUTS}, **found}
        prm_table.write(common.write_result("prm_baselines", figures), figures["tasks"])
        progress.table(name, [prm_table.cells(row) for row in prm_table.rows_of(found)], prm_table.COLUMNS)


def run_task(
    task: str, recipes: list[Recipe], seeds: range, sizes: dict[str, int], threads: int, progress: Progress
) -> dict[str, Any]:
    """Return the figures of a task: controls, and each PRM with its settings."""
    job = job_of(task, sizes, threads, progress)
    prms: dict[str, Any] = {}
    for recipe in recipes:
        runs = [without_details(train(job, recipe, seed)) for seed in seeds]
        prms[recipe.name] = {"label": recipe.label, "seeds": runs}
    return {"controls": controls(job.samples.parts["test"]), "prms": prms, "cost": job.samples.cost}


def job_of(task: str, sizes: dict[str, int], threads: int, progress: Progress) -> Job:
    """The base policy of a task and what it sampled, made where they are not there."""
    import torch

    from airls_ray.config import load_config

    config = load_config(config_path(task), [f"supervised_prm.problems={sizes['problems']}"])
    # Settings that are younger than a folder, and as they were without them, leave it as it is.
    given = config.model_dump(mode="json", exclude_defaults=True)
    folder = FOLDER / f"{task}_{common.digest(json.dumps([sizes, given]))}"
    base = common.warm_started_policy(config, progress)
    samples = sample(config, base, folder, sizes["completions"], progress)
    torch.set_num_threads(threads)
    return Job(task, base, samples, sizes["epochs"], folder, progress)


# --------------------------------------------------------------------------------------- training
def train(job: Job, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the figures of a PRM at the settings that are best on the validation problems."""
    file = job.folder / "prms" / f"{recipe.name}_seed_{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    started = time.perf_counter()
    grid: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    for rate in recipe.rates:
        best = train_at(job, recipe, rate, seed, grid, best)
    assert best is not None
    record = {**best, "grid": grid, "seconds": round(time.perf_counter() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    job.progress.say(
        f"{job.task}, {recipe.label}: Best-of-{SAMPLES} {best['test']['best_of_n']:.3f}, AUROC within "
        f"problems {best['test']['auroc_within']:.3f} (rate {best['rate']:g}, epoch {best['epoch']}, "
        f"steps by {best['aggregate']})"
    )
    return record


def without_details(record: dict[str, Any]) -> dict[str, Any]:
    """A record for the result file, whose grid has only what the choice is made by: a line a setting, with
    rate, epoch, aggregation, Best-of-N and AUROC within problems on the validation problems."""
    grid = [
        f"{one['rate']:g} {one['epoch']} {one['aggregate']} {one['best_of_n']:.4f} {one['auroc_within']:.4f}"
        for one in record["grid"]
    ]
    return {**record, "grid": grid}


def train_at(
    job: Job,
    recipe: Recipe,
    rate: float,
    seed: int,
    grid: list[dict[str, Any]],
    best: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Train at one rate; adds the figures of every epoch and aggregation to `grid`; returns the best so far.

    Test problems are looked at only where the validation problems say that a setting is the best.
    """
    config, engine, training = training_of(job, recipe, rate, seed)
    validation, test = job.samples.parts["validation"], job.samples.parts["test"]
    with job.progress.track(f"{recipe.name}, rate {rate:g}", job.epochs * len(training.plan(1))) as bar:
        for epoch in range(1, job.epochs + 1):
            for rows in training.plan(epoch):
                line = training.update(rows)
                bar.advance(1, loss=line["train_prm/loss"])
            ways = [
                one for one in recipe.aggregates if one != "odds" or config.prm.score_kind == "probability"
            ]
            for aggregate, figures in measure(engine, config, validation, ways).items():
                setting = {"rate": rate, "epoch": epoch, "aggregate": aggregate}
                grid.append({**setting, **figures})
                if best is None or _rank(figures) > _rank(best["validation"]):
                    best = {**setting, "validation": figures}
            if best is not None and (best["rate"], best["epoch"]) == (rate, epoch):
                (best["test"],) = measure(engine, config, test, [best["aggregate"]]).values()
    return best


def training_of(job: Job, recipe: Recipe, rate: float, seed: int) -> tuple[Config, Any, Any]:
    """The PRM before its first update: configuration, engine, and training (`plan` and `update`)."""
    from airls_ray.config import load_config
    from airls_ray.learning.engine import FrozenEngine, TorchEngine
    from airls_ray.models.load import load_policy_module, load_prm_module
    from airls_ray.prm.offline import AdversarialTraining
    from airls_ray.prm.offline_method import choose_method, logprobs_under
    from airls_ray.prm.training import LabelTraining

    overrides = [
        *recipe.overrides, f"seed={seed}", f"prm.learner.learning_rate={rate}", 
        "supervised_prm.rollouts_per_update=64",
        *([] if recipe.labels in (None, TRACES) else ["supervised_prm.labels=outcome"]),
    ]  # fmt: skip
    config = load_config(config_path(job.task), overrides)
    module = load_prm_module(
        job.base,
        config.prm.parameterisation,
        outcome_beta=config.prm.outcome_head,
        head=config.prm.head,
        text_head=bool(config.supervised_prm.text_loss),
    )
    engine = TorchEngine(module, config.prm.learner)
    training: Any
    if recipe.labels is None:
        method = choose_method(config, job.samples.stored)
        stored = job.samples.stored
        if method.needs_trace_logprobs:
            policy = FrozenEngine(load_policy_module(job.base), None)
            stored = replace(stored, traces=logprobs_under(policy, stored.traces, config, 0))
        training = AdversarialTraining(engine, config, method, stored, 0)
    elif recipe.labels == TRACES:
        training = TraceTraining(engine, config, job.samples.stored.traces)
    else:
        training = LabelTraining(
            engine, config, job.samples.learn[recipe.labels], job.samples.parts["test"].slice(0, 0), 0
        )
    return config, engine, training


class TraceTraining:
    """Supervised training on the traces: f = log phi is then a model of the expert, without any rollout."""

    def __init__(self, engine: Any, config: Config, traces: pa.Table) -> None:
        self._engine, self._config, self._traces = engine, config, traces

    def plan(self, epoch: int) -> list[Any]:
        """The traces in an order of the epoch's own, as many updates as 64 rollouts each would be."""
        import torch

        order = torch.randperm(self._traces.num_rows, generator=torch.Generator().manual_seed(epoch))
        return list(order.split(64 // ROLLOUTS))

    def update(self, rows: Any) -> dict[str, float]:
        """One update on some traces."""
        import pyarrow as pa

        from airls_ray.learning.supervised import update_on_traces

        taken = self._traces.take(pa.array(rows.numpy()))
        line = update_on_traces(self._engine, taken, self._config.prm.learner, pad_id=0)
        return {"train_prm/loss": line["sft/loss"]}


def _rank(figures: dict[str, float]) -> float:
    return figures["best_of_n"] + figures["auroc_within"]


if __name__ == "__main__":
    common.run(main)
