"""What a door is made of: kinds, doors, and the forms of a name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Source = Literal["built-in", "entry point", "module", "file", "url"]
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Kind:
    """What may be named in one place of a configuration."""

    name: str
    protocol: str
    """What the object must be, in one line."""
    package: str
    """Package whose modules are the built-ins, one each."""
    attribute: str
    """What a built-in's module calls its object."""
    example: str
    """The built-in to copy from, or a file of the examples."""
    make: Callable[[Any, Mapping[str, Any]], Any]
    """Makes of the object and the options that come with it what is used; a DoorError says what is wrong."""
    takes_urls: bool = False

    @property
    def folder(self) -> Path:
        """Where its built-ins lie."""
        return _ROOT.joinpath(*self.package.split("."))

    @property
    def group(self) -> str:
        """The group of entry points that packages offer for it."""
        return f"airls_ray.{self.name.replace(' ', '_')}"

    @property
    def remedy(self) -> str:
        """What an object must be and what to copy from, for the end of a sentence."""
        file = self.example
        if not file.endswith(".py"):
            file = f"{self.package.replace('.', '/')}/{file}.py"
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"{article} {self.name} is {self.protocol}; copy from {file}"


@dataclass(frozen=True)
class Door:
    """What a name stands for, as plain data (`dataclasses.asdict` is JSON, `Door(**...)` reads it)."""

    kind: str
    name: str
    """As the user wrote it, but with a whole path."""
    source: Source
    target: str
    """Module, path or URL."""
    attribute: str = ""
    text: str = ""
    """Of a file."""
    folder: str = ""
    """What goes on the import path, on machines that have it."""
    version: str = ""
    """Of the distribution, or the hash of the text."""


def source_of(name: str) -> Source:
    """Return which form a name has; a plain one is a built-in or an entry point."""
    if "://" in name:
        return "url"
    if ":" not in name and not name.endswith(".py"):
        return "built-in"
    return "file" if name.rpartition(":")[0].endswith(".py") or name.endswith(".py") else "module"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean ...?)`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
