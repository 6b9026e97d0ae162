"""`train-prm`: a PRM from labels, the baseline of the adversarial one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, read_config, show_result


def train_prm(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy to sample with; by default the one that `train` starts from.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default train_prm/ in the run folder.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A Parquet file of labels to learn from instead of sampling.")
    ] = None,
) -> None:
    """Train a PRM on labels of outcomes or of completions (ORM, Math-Shepherd)."""
    settings = read_config(config, overrides)
    from actors.launch_checks import base_policy
    from actors.train_prm import train_prm

    target = output or settings.output / settings.name / "train_prm"
    source = policy or base_policy(settings)
    show_result(f"PRM in {target / 'prm'}", train_prm(settings, source, target, labels=labels))
