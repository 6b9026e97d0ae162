"""`list`: what can be named in a configuration."""

from __future__ import annotations

from typing import Annotated

import typer


def list_doors(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="One kind, such as reward; or systems: those of papers; or settings: all keys.",
            show_default=False,
        ),
    ] = None,
    word: Annotated[
        str | None, typer.Argument(metavar="[WORD]", help="Only what has this word.", show_default=False)
    ] = None,
) -> None:
    """Print what a configuration can name: built-in and installed ones, and what one of your own must be."""
    from airls_ray.doors import KINDS, builtins, entry_points, kind_of, nearest
    from airls_ray.errors import ConfigError

    if kind == SYSTEMS:
        list_systems(word)
        return
    if kind == SETTINGS:
        list_settings(word)
        return
    if kind is not None and kind.replace("_", " ") not in KINDS:
        known = [*KINDS, SYSTEMS, SETTINGS]
        raise ConfigError(f"there is no kind {kind!r}{nearest(kind, known)}: there are {', '.join(known)}")
    for name in [kind] if kind is not None else KINDS:
        found = kind_of(name)
        lines = builtins(found)
        lines |= {key: f"{one.value} (entry point)" for key, one in entry_points(found).items()}
        known = list(lines)
        lines = {key: line for key, line in lines.items() if _has(word, f"{key} {line}")}
        if word is not None and not lines:
            near = nearest(word, known)
            raise ConfigError(
                f"no {found.name} has '{word}' in its name or line{near}: airls-ray list {kind}"
            )
        typer.echo(f"{found.name}")
        width = max(map(len, lines), default=0)
        for key, line in lines.items():
            typer.echo(f"  {key:<{width}}  {line}")
        typer.echo(f"  Your own: file.py:NAME or package.module:NAME; {found.remedy}")
    if kind is None:
        typer.echo("The systems of neighbouring papers, and their names here: airls-ray list systems [WORD]")
        typer.echo("Every setting, with its default and what it means: airls-ray list settings [WORD]")


SYSTEMS = "systems"
SETTINGS = "settings"


def list_settings(word: str | None) -> None:
    """Print the settings, each with its type, its default and the first sentence on it.

    Raises:
        ConfigError: none has the word.
    """
    from airls_ray.config.settings_list import find_settings

    for one in find_settings(word):
        typer.echo(f"{one.name}: {one.kind}, by default {one.default}")
        typer.echo(f"    {one.meaning}")


def list_systems(word: str | None) -> None:
    """Print the systems of papers, each with the line that runs it.

    Raises:
        ConfigError: none has the word.
    """
    from airls_ray.errors import ConfigError
    from airls_ray.systems import find_systems

    found = find_systems(word)
    if not found:
        raise ConfigError(
            f"no system has '{word}' in its name, paper or settings: airls-ray list systems prints all, and "
            "docs/systems.md names what is left out"
        )
    for one in found:
        typer.echo(f"{one.name} ({', '.join(f'arXiv {paper}' for paper in one.papers) or 'common practice'})")
        typer.echo(f"    {one.line}")


def _has(word: str | None, text: str) -> bool:
    return word is None or word.lower() in text.lower()
