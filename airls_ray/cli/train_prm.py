"""`train-prm`: a PRM from labels, the baseline of the adversarial one, or from stored rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import (
    ConfigArgument,
    OverridesArgument,
    read_config,
    require_files,
    show_result,
)
from airls_ray.errors import ConfigError

if TYPE_CHECKING:
    from airls_ray.config.schema import Config


def train_prm(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Policy to sample with (or to start from); by default the one of `train`."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default train_prm/ in the run folder.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A Parquet file of labels to learn from instead of sampling.")
    ] = None,
    rollouts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Stored rollouts (JSONL, JSON, Parquet) to learn from by CONFIG's method; repeatable."
        ),
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Correct solutions for --rollouts; by default those of --problems.")
    ] = None,
    problems: Annotated[
        Path | None,
        typer.Option(help="Prompts and traces for --rollouts by problem_id; by default task.train_file."),
    ] = None,
) -> None:
    """Train a PRM on labels of outcomes or of completions (ORM, Math-Shepherd), or on stored rollouts."""
    if rollouts and labels:
        raise ConfigError("give either --labels or --rollouts, not both: each of them is what the PRM learns")
    if not rollouts and (traces or problems):
        raise ConfigError("--traces and --problems belong to stored rollouts: give those by --rollouts")
    require_files(labels=labels, traces=traces, problems=problems)
    for path in rollouts or []:
        require_files(rollouts=path)
    settings = read_config(config, overrides)
    target = output or settings.output / settings.name / "train_prm"
    source = policy or _start(settings, bool(rollouts))
    from airls_ray.models.check import check_model_folder

    check_model_folder(source)
    if rollouts:
        from actors.commands.train_prm_offline import StoredFiles, train_prm_offline

        found = StoredFiles(rollouts, traces, problems or getattr(settings.task, "train_file", None))
        result = train_prm_offline(settings, source, target, found)
    else:
        from actors.commands.train_prm import train_prm

        result = train_prm(settings, source, target, labels=labels)
    show_result(f"PRM in {target / 'prm'}", result)


def _start(settings: Config, is_stored: bool) -> str:
    """The policy that `train` starts from; stored rollouts can do with a PRM alone."""
    if is_stored and settings.prm.path is not None and settings.model.path is None:
        return settings.prm.path
    from actors.train.launch_checks import base_policy

    return base_policy(settings)
