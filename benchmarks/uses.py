"""Two other uses of a PRM (rePIRL): problems that the base never solves, and training on a PRM alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import common
import comparison
import typer
from method_variants import overrides_of, variant

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "uses"
TEST_TIME = common.ROOT / "configs" / "arithmetic_test_time_training.yaml"
COLOURS = {"airl_s": "#0072b2", "grpo": "#d55e00"}
LABELS = {"airl_s": "AIRL-S (outcome and PRM)", "grpo": "GRPO (outcome alone)"}


def main(
    iterations: Annotated[int, typer.Option(min=10, help="Iterations of each run.")] = 40,
    problems: Annotated[int, typer.Option(min=100, help="Problems that are tried for hard ones.")] = 3000,
    samples: Annotated[int, typer.Option(min=2, help="Samples that must all be wrong.")] = 16,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier runs.")] = False,
) -> None:
    """Train on unsolved problems with and without the PRM, then train a fresh policy on a frozen PRM alone.

    About half an hour; interrupted, the same command goes on.
    """
    common.use_all_cores()
    import shutil

    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    if fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    demo = load_config(common.CONFIG)
    base = common.warm_started_policy(demo, progress)
    other = common.warm_started_policy(load_config(common.CONFIG, ["seed=1"]), progress)
    with connected(demo):
        hard, found = hard_problems(demo, base, problems, samples, progress)
        runs = {
            name: train(run_config(name, base, hard, iterations), progress) for name in ("grpo", "airl_s")
        }
        source = train(run_config("airl_s", base, None, iterations), progress)
        taught = train(test_time_config(source[1], other, iterations), progress)
    report(found, runs, source, taught, progress)


def hard_problems(
    config: Config, base: Path, problems: int, samples: int, progress: Progress
) -> tuple[Path, dict[str, Any]]:
    """File of the problems that the base policy never solves (made once), and what was found."""
    from actors.commands.unsolved import write_unsolved
    from airls_ray import files

    file = FOLDER / f"unsolved_{problems}_{samples}.jsonl"
    facts = file.with_suffix(".json")
    if not facts.exists():
        found = write_unsolved(config, str(base), file, problems, samples, progress)
        files.write_text(facts, files.to_json(found) + "\n")
    content: dict[str, Any] = json.loads(facts.read_text())
    return file, content


def run_config(name: str, base: Path, problems: Path | None, iterations: int) -> Config:
    """A run of the demo by a method, on the problems of a file or on generated ones."""
    from airls_ray.config import load_config

    place = "hard" if problems else "source"
    overrides = [
        *overrides_of(variant(name)),
        f"name={place}_{name}",
        f"output={FOLDER}",
        f"model.path={base}",
    ]
    overrides += [f"task.train_file={problems}"] if problems else []
    config = load_config(common.CONFIG, overrides)
    changes = {"iterations": iterations - config.warmup_iterations, "keep_checkpoints": 1}
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def test_time_config(source: Path, policy: Path, iterations: int) -> Config:
    """A fresh policy with the PRM of the run in `source` as its only reward."""
    from airls_ray.config import load_config
    from airls_ray.runs.run_folder import RunFolder

    checkpoint = RunFolder(source).latest_checkpoint()
    overrides = [
        "name=test_time_training",
        f"output={FOLDER}",
        "seed=1",
        f"model.path={policy}",
        f"prm.path={checkpoint}/prm",
        f"train.iterations={iterations}",
        "train.keep_checkpoints=1",
    ]
    return load_config(TEST_TIME, overrides)


def train(config: Config, progress: Progress) -> tuple[dict[str, Any], Path]:
    """Summary and folder of a run: one that is there, or one that is started or continued."""
    from actors.train.launch import run_training
    from airls_ray.runs.run_folder import RunFolder

    run = RunFolder(config.output / config.name)
    progress.say(f"{config.name}: {'finished before' if run.read_summary() else 'training'}")
    summary = run.read_summary() or run_training(config, resume=run.config_file.exists())
    return summary, run.path


def report(
    found: Mapping[str, Any],
    runs: Mapping[str, tuple[dict[str, Any], Path]],
    source: tuple[dict[str, Any], Path],
    taught: tuple[dict[str, Any], Path],
    progress: Progress,
) -> None:
    """Print the tables, draw the curves, write the result."""
    curves = {name: outcome_curve(folder) for name, (_, folder) in runs.items()}
    hard = {
        name: {"first": fmean(ends(curve)[0]), "last": fmean(ends(curve)[1]), **gains(runs[name][0])}
        for name, curve in curves.items()
    }
    progress.table(
        f"Training on {found['unsolved']} of {found['problems']} problems that {found['samples']} samples of "
        "the base policy never solved",
        [
            (
                LABELS[name],
                f"{row['first']:.3f}",
                f"{row['last']:.3f}",
                f"{row['base']:.3f}",
                f"{row['trained']:.3f}",
            )
            for name, row in hard.items()
        ],
        ("", "outcome, first 5", "last 5 iterations", "test: base", "test: trained"),
    )
    alone = {"prm_of": gains(source[0]), "policy": gains(taught[0])}
    progress.table(
        "A fresh policy trained on the frozen PRM of another run alone (no outcome)",
        [("sampled", *(f"{alone['policy'][side]:.3f}" for side in ("base", "trained")))],
        ("", "fresh policy", "after"),
    )
    figures = {"found": dict(found), "hard_problems": hard, "test_time_training": alone, "curves": curves}
    path = common.write_result("uses", figures)
    draw(path.with_suffix(".png"), curves)
    progress.say(f"written to {path} and {path.with_suffix('.png').name}")


def gains(summary: Mapping[str, Any]) -> dict[str, float]:
    """Sampled accuracy on test problems, before and after."""
    return {side: summary["accuracy"][side]["sampled"] for side in ("base", "trained")}


def outcome_curve(folder: Path) -> comparison.Curve:
    """Mean outcome by iteration."""
    from airls_ray.runs.run_folder import RunFolder

    return {line["iteration"]: line["outcome/mean"] for line in RunFolder(folder).read_metrics()}


def ends(curve: comparison.Curve, count: int = 5) -> tuple[list[float], list[float]]:
    """The first and the last values of a curve."""
    values: Sequence[float] = [curve[at] for at in sorted(curve)]
    return list(values[:count]), list(values[-count:])


def draw(path: Path, curves: Mapping[str, comparison.Curve]) -> None:
    """Outcome on hard problems by iteration, with and without the PRM."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
        x, mean, _, _ = comparison.band([curve])
        axes.plot(x, mean, color=COLOURS[name], label=LABELS[name], linewidth=2)
    axes.set(xlabel="iteration (equal rollouts, PRM warm-up counted)", ylabel="outcome on unsolved problems")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    common.run(main)
