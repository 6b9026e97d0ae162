"""`train-prm`: a PRM from labels that it makes or is given, or from stored rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import (
    ConfigArgument,
    OverridesArgument,
    TrustOption,
    read_config,
    require_files,
    show_result,
)
from airls_ray.cli.evaluate_prm import DataFormat
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
    steps: Annotated[
        list[Path] | None,
        typer.Option(
            help="Solutions with labelled steps (TRL's, Math-Shepherd's, PRM800K's, ProcessBench's form, "
            "your own) to learn from; repeatable."
        ),
    ] = None,
    data_format: Annotated[
        DataFormat | None, typer.Option(help="Form of --steps; by default told from the fields.")
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
    trust: TrustOption = False,
) -> None:
    """Train a PRM on labels of outcomes or completions (ORM, Math-Shepherd), labelled steps, or rollouts."""
    given = {"--labels": labels, "--steps": steps, "--rollouts": rollouts}
    names = [name for name, files in given.items() if files]
    if len(names) > 1:
        raise ConfigError(f"give either {' or '.join(names)}, not both: each of them is what the PRM learns")
    if not rollouts and (traces or problems):
        raise ConfigError("--traces and --problems belong to stored rollouts: give those by --rollouts")
    if data_format and not steps:
        raise ConfigError("--data-format is the form of labelled steps: give those by --steps")
    require_files(labels=labels, traces=traces, problems=problems)
    for path in rollouts or []:
        require_files(rollouts=path)
    for path in steps or []:
        require_files(steps=path)
    settings = read_config(config, overrides, trust=trust)
    target = output or settings.output / settings.name / "train_prm"
    source = policy or _start(settings, bool(rollouts or steps))
    from airls_ray.models.check import check_model_folder

    check_model_folder(source, context_tokens=settings.model.context_tokens)
    if rollouts:
        from actors.commands.train_prm_offline import StoredFiles, train_prm_offline

        found = StoredFiles(rollouts, traces, problems or getattr(settings.task, "train_file", None))
        result = train_prm_offline(settings, source, target, found)
    elif steps:
        from actors.commands.train_prm import train_prm
        from airls_ray.prm.labelled_files import StepFiles

        labelled = StepFiles(steps, None if data_format is None else data_format.value)
        result = train_prm(settings, source, target, steps=labelled)
    else:
        from actors.commands.train_prm import train_prm

        result = train_prm(settings, source, target, labels=labels)
    show_result(f"PRM in {target / 'prm'}", result)


def _start(settings: Config, is_stored: bool) -> str:
    """The policy that `train` starts from; stored rollouts and labelled steps can do with a PRM alone."""
    if is_stored and settings.prm.path is not None and settings.model.path is None:
        return settings.prm.path
    from actors.train.launch_checks import base_policy

    return base_policy(settings)
