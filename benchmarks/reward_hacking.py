"""Reward hacking on purpose: the policy learns from a PRM's reward alone, with and without stabilisers.

    base policy -> 200 iterations on the reward of one PRM, no weight on the outcome
        curves of reward and outcome, the iteration of each warning, the best outcome and the last

What is asked: how far can a policy be pushed against each PRM before the outcome falls, and which warning
comes before?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from method_variants import METHODS, Variant

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "reward_hacking"
PRMS = ("airl_s", "repirl", "pure", "prime")
"""Variants of `methods.py`: two PRMs without labels, a labelled frozen one, an implicit one."""
REWARD_ALONE = (
    "method.step_weight=1.0",
    "policy.learning_rate=1.0e-4",
    "train.rollouts_per_problem=4",
    "search.problems=8",
)
STABILISED = ("method.kl_coefficient=0.05",)
STABILISED_PRM = ("prm.output_l2=0.1", "prm.replay_iterations=2")
"""Of PRMs that learn; a frozen one has nothing to hold."""
SMOOTHED = 10
"""Iterations of a moving mean."""


def main(
    task: Annotated[str, typer.Option(help="Task of methods.py.")] = "quantum_lock",
    iterations: Annotated[int, typer.Option(min=20, help="Of every run, PRM warm-up included.")] = 200,
    problems: Annotated[int, typer.Option(min=2, help="Of an iteration, with four rollouts each.")] = 16,
    only: Annotated[list[str] | None, typer.Option(help="Only this PRM (may be repeated).")] = None,
) -> None:
    """Train on each PRM's reward alone and draw what happens to the outcome.

    Six to ten minutes a run on two cores, eight runs; finished runs are used again.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    figures: dict[str, Any] = {}
    with connected(load_config(common.CONFIG), keep=True):
        for one in METHODS:
            if one.name not in (only or PRMS):
                continue
            for stabilised in (False, True):
                config = run_config(task, one, iterations, problems, stabilised=stabilised)
                progress.say(f"{one.label}, {'stabilised' if stabilised else 'bare'}")
                figures[config.name] = {
                    "label": one.label,
                    "stabilised": stabilised,
                    **run(task, one, config, progress),
                }
                path = common.write_result("reward_hacking", {"task": task, "runs": figures})
                draw(path.with_suffix(".png"), figures)
    progress.table("From the reward of the PRM alone", rows(figures), HEAD)


def run_config(task: str, one: Variant, iterations: int, problems: int, *, stabilised: bool) -> Config:
    """Configuration of a run."""
    import methods

    more = [*REWARD_ALONE, f"train.problems_per_iteration={problems}"]
    if stabilised:
        more += [*STABILISED, *(() if one.needs_prm else STABILISED_PRM)]
    config = methods.run_config(task, 0, one, iterations, more)
    name = f"{one.name}_{'stabilised' if stabilised else 'bare'}"
    return config.model_copy(update={"name": name, "output": FOLDER / task})


def run(task: str, one: Variant, config: Config, progress: Progress) -> dict[str, Any]:
    """Train once, or read what was trained; returns the curves and when each warning came."""
    import methods

    _, folder, _ = methods.trained(task, one, config, progress)
    return curves(folder.read_metrics())


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves of reward and outcome while the policy learns, and the iteration of each warning."""
    from airls_ray.runs.diagnostics import RunWatch

    watch = RunWatch()
    warnings = {found.kind: line["iteration"] for line in lines for found in watch.see(line)}
    learning = [line for line in lines if line.get("phase", "train") == "train"]
    outcome = moving([line["outcome/mean"] for line in learning])
    best = max(range(len(outcome)), key=outcome.__getitem__)
    return {
        "iteration": [line["iteration"] for line in learning],
        "outcome": [round(value, 4) for value in outcome],
        "reward": [round(value, 4) for value in moving([line["prm/reward_mean"] for line in learning])],
        "warnings": warnings,
        "first": round(outcome[min(SMOOTHED, len(outcome)) - 1], 4),
        "best": round(outcome[best], 4),
        "best_iteration": learning[best]["iteration"],
        "last": round(outcome[-1], 4),
    }


def moving(values: Sequence[float]) -> list[float]:
    """Mean of each value and those before it, `SMOOTHED` in all."""
    windows = (values[max(0, end - SMOOTHED) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


HEAD = ("PRM of", "", "outcome first", "best", "at iteration", "last", "warnings")


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The table's rows."""
    return [
        [
            run["label"],
            "stabilised" if run["stabilised"] else "bare",
            *(f"{run[key]:.3f}" for key in ("first", "best")),
            str(run["best_iteration"]),
            f"{run['last']:.3f}",
            ", ".join(f"{kind} {iteration}" for kind, iteration in run["warnings"].items()) or "none",
        ]
        for run in figures.values()
    ]


def draw(path: Path, figures: Mapping[str, Any]) -> None:
    """A panel for each run: outcome (left axis), reward (right axis), and a line where a warning came."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = (len(figures) + 1) // 2
    figure = Figure(figsize=(12, 3.0 * height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(height, 2, squeeze=False).flatten()
    for panel, run in zip(panels, figures.values(), strict=False):
        panel.plot(run["iteration"], run["outcome"], color="#0072b2")
        panel.set_ylabel("outcome", color="#0072b2")
        panel.set_ylim(0, 1)
        panel.set_xlabel("iteration")
        panel.set_title(f"{run['label']}, {'stabilised' if run['stabilised'] else 'bare'}", fontsize=10)
        other = panel.twinx()
        other.plot(run["iteration"], run["reward"], color="#d55e00")
        other.set_ylabel("reward of the PRM", color="#d55e00")
        for number, (kind, iteration) in enumerate(run["warnings"].items()):
            panel.axvline(iteration, color="#555555", linestyle=":", linewidth=1)
            panel.text(iteration, 0.97 - 0.09 * number, f" {kind}", fontsize=7, va="top", color="#555555")
        for each in (panel, other):
            each.spines["top"].set_visible(False)
    for panel in panels[len(figures) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    common.run(main)
