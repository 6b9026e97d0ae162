"""`serve`: an endpoint whose answers come from search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, read_config


def serve(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    *,
    policy: Annotated[Path, typer.Option(help="Policy folder; its name is the model's name.")],
    prm: Annotated[Path | None, typer.Option(help="PRM folder, unless search.scorer needs none.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File of the bearer token; by default the variable AIRLS_RAY_TOKEN, or no token."),
    ] = None,
) -> None:
    """Answer OpenAI's completions and chat completions by search, until Ctrl-C."""
    settings = read_config(config, overrides)
    from actors.serve import run_serve

    run_serve(settings, policy, prm, host, port, token_file)
