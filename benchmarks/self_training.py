"""Self-training, `airls-ray self-train`: what a PRM adds to learning from one's own right responses.

    base policy -> searches training problems -> right responses that score high -> warm start from the base
        two rounds, with the log-probability alone, the PRM of an AIRL-S run, ReST-MCTS* and its values

Each learns from as many problems by as many updates; accuracy is of single samples of the test problems.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from method_variants import PRM_CONFIGS, config_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "self_training"
TASKS = ("arithmetic", "countdown")
"""One right way, where a wrong chain can end in the right answer; and many right ways."""
SAME = (
    "search.budgets=[16]",
    "search.temperature=1.0",
    "search.samples=8",
    "self_train.traces_per_problem=1",
    "sft.learner.learning_rate=3.0e-4",
    "sft.learner.lr_warmup_updates=5",
)
"""Of every variant: of 16 responses the right one that scores highest. A second one would be wrong in its
steps on `arithmetic`, where one solution is right."""


@dataclass(frozen=True)
class Variant:
    """A way to train oneself."""

    name: str
    label: str
    overrides: tuple[str, ...]
    prm: str | None = None
    """Guides the first search: `airl_s`, of the run of `systems.py`; `labels`, Math-Shepherd's."""


VARIANTS = (
    Variant(
        "log_prob",
        "Best-of-16, no PRM (log-probability)",
        ("search.algorithms=[best_of_n]", "search.scorer=policy_log_prob", "self_train.prm=none"),
    ),
    Variant(
        "airl_s",
        "Best-of-16, PRM of AIRL-S",
        ("search.algorithms=[best_of_n]", "self_train.prm=none"),
        "airl_s",
    ),
    Variant(
        "rest_mcts",
        "ReST-MCTS*, values of its tree",
        (
            "search.algorithms=[mcts]",
            "self_train.prm=values",
            "method=math_shepherd",
            "prm.parameterisation=scalar_head",
            "prm.search_score=auto",
            "prm.log_prob=auto",
            "prm.reward=probability",
            "prm.search_aggregate=min",
            "supervised_prm.step_loss=mean_squared_error",
        ),
        "labels",
    ),
)


def main(
    task: Annotated[list[str] | None, typer.Option(help="Only this task (may be repeated).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this variant (may be repeated).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Of each.")] = 2,
    problems: Annotated[int, typer.Option(min=8, help="Training problems that are searched.")] = 512,
    updates: Annotated[int, typer.Option(min=1, help="Of a round's warm start.")] = 40,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier calls made.")] = False,
) -> None:
    """Train the base policy of each task on its own right responses, and compare.

    Two to five minutes a round on two cores, after the run of AIRL-S that `systems.py` makes; finished stages
    are used again, and what is not asked for keeps its figures.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    if fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    sizes = (
        f"self_train.rounds={rounds}",
        f"self_train.problems={problems}",
        f"sft.iterations={updates}",
    )
    figures = common.kept_figures("self_training")
    with connected(load_config(config_path("arithmetic")), keep=True):
        for name in task or TASKS:
            for one in VARIANTS:
                if only and one.name not in only:
                    continue
                runs = []
                for seed in range(seeds):
                    progress.say(f"{one.label} on {name}, seed {seed}")
                    runs.append(run(name, one, seed, sizes, progress))
                figures.setdefault(name, {})[one.name] = {"label": one.label, "runs": runs}
                path = common.write_result("self_training", figures)
                draw(path.with_suffix(".png"), figures)
            progress.table(f"{name}: {rounds} rounds of {problems} problems", rows_of(figures[name]), COLUMNS)


def run(task: str, one: Variant, seed: int, sizes: tuple[str, ...], progress: Progress) -> dict[str, Any]:
    """Self-train, or read what was; returns accuracies, and what was learned from."""
    import methods

    from actors.search.self_train import run_self_train
    from airls_ray.config import load_config

    base = methods.base_policy(task, progress)
    prm = None if one.prm is None else first_prm(task, one.prm, base, progress)
    at = PRM_CONFIGS[task] if one.prm == "labels" else config_path(task)
    config = load_config(at, [*SAME, *sizes, *one.overrides, f"seed={seed}"])
    folder = FOLDER / task / f"{one.name}_seed_{seed}"
    found = run_self_train(config, base, prm, folder, progress)
    return {
        "seed": seed,
        "problems": found["problems"],
        "updates": config.sft.iterations,
        "base": found["accuracy"],
        "rounds": [
            {key: each[key] for key in ("accuracy", "low", "high", "solved", "traces")}
            | {"sound_traces": sound_share(config, folder / f"round_{each['round']}" / "traces.jsonl")}
            for each in found["rounds"]
        ],
    }


def first_prm(task: str, kind: str, base: Path, progress: Progress) -> Path:
    """Folder of the PRM that guides the first search."""
    import methods
    import systems

    if kind == "labels":
        return methods.labelled_prm(task, base, progress)[0]
    return systems.trained_policy(task, 0, systems.variant_named(kind), progress).parent / "prm"


def sound_share(config: Config, traces: Path) -> float:
    """Share of kept traces of which every step is right, not the answer alone."""
    from airls_ray.data.check_task import steps_of
    from airls_ray.data.problems import read_problems, table_to_problems
    from airls_ray.tasks import make_task

    task = make_task(config.task)
    sound = [
        all(task.step_truth(problem, steps_of(task, trace)) or [])
        for problem in table_to_problems(read_problems(traces))
        for trace in problem.traces
    ]
    return sum(sound) / len(sound)


COLUMNS = (
    "learned from",
    "seeds",
    "base",
    "round",
    "accuracy",
    "95 %",
    "solved",
    "traces",
    "all steps right",
)


def rows_of(found: dict[str, Any]) -> list[list[Any]]:
    """A row a round of each variant: means over its seeds, also of the bounds."""
    rows = []
    for one in found.values():
        base = fmean(run["base"]["mean"] for run in one["runs"])
        for number, rounds in enumerate(zip(*(run["rounds"] for run in one["runs"]), strict=True), 1):
            mean = {name: fmean(each[name] for each in rounds) for name in rounds[0]}
            bounds = f"{mean['low']:.3f}-{mean['high']:.3f}"
            rows.append(
                [one["label"], len(rounds), base, number, mean["accuracy"], bounds]
                + [mean[name] for name in ("solved", "traces", "sound_traces")]
            )
    return rows


def draw(path: Path, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Accuracy by round of each variant, mean and every seed, with the mean interval; a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(figures), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(figures), squeeze=False)[0]
    for axes, (task, found) in zip(panels, figures.items(), strict=True):
        for one, color in zip(found.values(), ("#777777", "#0072b2", "#d55e00"), strict=False):
            points = [
                [run["base"] | {"accuracy": run["base"]["mean"]}, *run["rounds"]] for run in one["runs"]
            ]
            mean, low, high = (
                [fmean(each[name] for each in now) for now in zip(*points, strict=True)]
                for name in ("accuracy", "low", "high")
            )
            rounds = range(len(mean))
            axes.fill_between(rounds, low, high, color=color, alpha=0.12, linewidth=0)
            for run in points if len(points) > 1 else ():
                axes.plot(rounds, [each["accuracy"] for each in run], color=color, linewidth=0.7, alpha=0.6)
            label = f"{one['label']}, {len(points)} seed{'s' if len(points) > 1 else ''}"
            axes.plot(rounds, mean, "o-", color=color, label=label)
        axes.set(title=task, xlabel="round (0: base policy)", ylabel="accuracy of one sample (95 %)")
        axes.set_xticks(range(1 + max(len(run["rounds"]) for one in found.values() for run in one["runs"])))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    common.run(main)
