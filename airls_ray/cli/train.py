"""`sft`, `train` and `demo`: the commands that start actors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import (
    ConfigArgument,
    OverridesArgument,
    TrustOption,
    read_config,
    require_problems,
    show_result,
    show_sizes,
)

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

DEMO_CONFIG = "demo_arithmetic.yaml"


def sft(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the new policy; by default sft/ in the run folder.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last accuracy check of an interrupted one.")
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Warm start: train the policy on correct traces until it samples well enough."""
    settings = read_config(config, overrides, trust=trust or None)
    require_problems(settings, test=False)
    from actors.commands.sft import run_sft
    from actors.train.launch_checks import warm_start_folder

    folder = output or warm_start_folder(settings)
    show_result(f"Warm start in {folder}", run_sft(settings, folder, resume=resume))


def train(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run needs: actors, GPUs, memory, sizes.")
    ] = False,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="For --dry-run: GPUs of a node.")] = 8,
    gpu_memory_gib: Annotated[
        float, typer.Option(min=0.1, help="For --dry-run: memory of a GPU, in GiB.")
    ] = 80.0,
    trust: TrustOption = False,
) -> None:
    """Train policy and PRM by the method of CONFIG, then search with them and write the report."""
    settings = read_config(config, overrides, trust=trust)
    _check_names(settings)
    if dry_run:
        from airls_ray.cli.dry_run import show_plan

        show_plan(settings, gpus_per_node, gpu_memory_gib)
        return
    require_problems(settings, test=True)
    show_sizes(settings)
    from actors.train.launch_checks import base_policy, with_given_prm

    if not (resume and settings.train.storage):  # which may bring the warm start
        base_policy(with_given_prm(settings))
    from actors.train.launch import run_training

    summary = run_training(settings, resume)
    from actors.commands.demo import show_summary
    from airls_ray.console.choose import make_progress

    show_summary(summary, make_progress())
    folder = settings.output / settings.name
    typer.echo(f"Report: {folder / 'report.html'}; all figures: {folder / 'summary.json'}")


def demo(
    overrides: OverridesArgument = None,
    config: Annotated[
        Path | None, typer.Option(help=f"Another configuration than configs/{DEMO_CONFIG}.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """The whole system on this machine: warm start, AIRL-S, search with the PRM, report."""
    settings = read_config(config or configs_folder() / DEMO_CONFIG, overrides, trust=trust)
    _check_names(settings)
    show_sizes(settings)
    from actors.commands.demo import run_demo

    run_demo(settings)


def _check_names(settings: Config) -> None:
    """Say what is wrong with names of code and of a metric before anything else is done."""
    from airls_ray.config.named import find_doors
    from airls_ray.runs.best_metric import check_best_metric

    check_best_metric(settings)
    find_doors(settings)


def configs_folder() -> Path:
    """Return configs/ of the working directory if it has the demo, else those that came with this package."""
    here = Path("configs")
    return here if (here / DEMO_CONFIG).exists() else Path(__file__).resolve().parents[1] / "configs"
