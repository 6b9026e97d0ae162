"""`config`: the settings of a run, all of them, as the other commands read them."""

from __future__ import annotations

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, read_config


def config(config: ConfigArgument, overrides: OverridesArgument = None, trust: TrustOption = False) -> None:
    """Print every setting of CONFIG as YAML: its bases, its method's preset and overrides filled in."""
    settings = read_config(config, overrides, trust=trust or None)
    from airls_ray.config.load import dump_config

    typer.echo(dump_config(settings), nl=False)
