"""`self-train`: rounds of search and learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, latest_policy, read_config


def self_train(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy to begin with; by default that of the run's latest checkpoint."),
    ] = None,
    prm: Annotated[
        Path | None,
        typer.Option(help="PRM of the first search; by default the latest one, or none beside --policy."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default self_train/ in the run folder.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Search training problems, learn the right traces that score high, teach the PRM; and again.

    What is finished in the folder is not done again.
    """
    settings = read_config(config, overrides, trust=trust)
    target = output or settings.output / settings.name / "self_train"
    if policy is None:
        policy, prm = latest_policy(settings, prm)
    from airls_ray.self_training.rounds import check_settings

    check_settings(settings, str(policy), prm)
    from actors.search.self_train import run_self_train

    summary = run_self_train(settings, policy, prm, target)
    typer.echo(f"Policy: {summary['policy']}; all figures: {target / 'self_train.json'}")
