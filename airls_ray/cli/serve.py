"""`serve`: an endpoint whose answers come from search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, latest_policy, read_config


def serve(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy folder, whose name is the model's; by default that of the run's latest checkpoint."
        ),
    ] = None,
    prm: Annotated[
        Path | None, typer.Option(help="PRM folder; by default the latest one, or none beside --policy.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File of the bearer token; by default the variable AIRLS_RAY_TOKEN, or no token."),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Answer OpenAI's completions and chat completions by search, until Ctrl-C."""
    settings = read_config(config, overrides, trust=trust or None)
    if policy is None:
        policy, prm = latest_policy(settings, prm)
    from airls_ray.prm.forms import check_search_models

    check_search_models(settings, policy, prm)
    from actors.search.serve import run_serve

    run_serve(settings, policy, prm, host, port, token_file)
