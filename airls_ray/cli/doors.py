"""`list`: what can be named in a configuration."""

from __future__ import annotations

from typing import Annotated

import typer


def list_doors(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="One kind, such as reward.", show_default=False)
    ] = None,
) -> None:
    """Print what a configuration can name: built-in and installed ones, and what one of your own must be."""
    from airls_ray.doors import KINDS, builtins, entry_points, kind_of

    for name in [kind] if kind is not None else KINDS:
        found = kind_of(name)
        lines = builtins(found)
        lines |= {key: f"{one.value} (entry point)" for key, one in entry_points(found).items()}
        typer.echo(f"{found.name}")
        width = max(map(len, lines))
        for key, line in lines.items():
            typer.echo(f"  {key:<{width}}  {line}")
        typer.echo(f"  Your own: file.py:NAME or package.module:NAME; {found.remedy}")
