"""Every setting by its dotted name, with its type, its default and what its docstring says first."""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from airls_ray.config.door_section import DoorConfig
from airls_ray.config.foreign_keys import answer_to
from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError

_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    type(None): "null",
    Any: "anything",
}
_LIMITS: dict[str, tuple[type, str]] = {
    "above": (Gt, "gt"),
    "at least": (Ge, "ge"),
    "below": (Lt, "lt"),
    "at most": (Le, "le"),
}
_REQUIRED = object()


class Setting(NamedTuple):
    """One setting, as a table shows it."""

    name: str
    """Dotted, as in an override."""
    kind: str
    """What it may be, in words."""
    default: str
    """As an override writes it; of a task that is not the default one, that of its section."""
    meaning: str
    """First sentence of its docstring."""
    text: str
    """The whole docstring, on one line."""


def all_settings() -> list[Setting]:
    """Return every setting once, in the order of the sections; a task's are those of any task."""
    found: dict[str, Setting] = {}
    for one in _settings(Config, "", Config()):
        first = found.setdefault(one.name, one)  # which another task may have, too
        kinds = dict.fromkeys((*first.kind.split(" | "), *one.kind.split(" | ")))
        found[one.name] = first._replace(kind=" | ".join(kinds))
    return list(found.values())


def find_settings(word: str | None = None) -> list[Setting]:
    """Return the settings whose name or docstring has the word, in any case; all of them without one.

    Raises:
        ConfigError: none has it; names the nearest, or what another package's key is here.
    """
    settings = all_settings()
    if word is None:
        return settings
    wanted = word.lower()
    found = [one for one in settings if wanted in f"{one.name} {one.text}".lower()]
    if found:
        return found
    theirs = answer_to(word, None)
    names = {part: one.name for one in reversed(settings) for part in (*one.name.split("."), one.name)}
    near = [names[one] for one in difflib.get_close_matches(wanted, names, n=1)]
    more = theirs or (f"did you mean {near[0]}?" if near else "airls-ray list settings prints all")
    raise ConfigError(f"no setting has '{word}' in its name or description; {more}")


def _settings(section: type[BaseModel], prefix: str, values: Any) -> Iterator[Setting]:
    """Yield those of a section; `values` is the default one where it is of this class."""
    for name, field in section.model_fields.items():
        value = getattr(values, name) if isinstance(values, section) else _default(field)
        options = _sections(field.annotation)
        named = [one for one in options if issubclass(one, DoorConfig)]
        if not options or named:
            text = _docstring(section, name)
            meaning = re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]
            kind = _kind(field.annotation, field.metadata)
            yield Setting(prefix + name, kind, _shown(value), meaning, text)
        for option in options:
            inside = _settings(option, f"{prefix}{name}.", value)
            of_names = {f"{prefix}{name}.{key}" for key in DoorConfig.model_fields} if named else set()
            yield from (one for one in inside if one.name not in of_names)


def _default(field: FieldInfo) -> Any:
    return _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field holds, those of a union all; none where it holds a value or a list."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [one for part in get_args(annotation) for one in _sections(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Say what a value may be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0], (*parts[1:], *metadata))
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(_kind(one, metadata) for one in parts))
    if origin is list:
        return f"list: {_kind(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_kind, parts))}]"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not issubclass(annotation, DoorConfig):
            return "section"
        return f"name of {'an' if annotation.kind[0] in 'aeiou' else 'a'} {annotation.kind}"
    kind = _NAMES.get(annotation, "value")
    limits = _limits(metadata) if annotation in (int, float) else []
    return f"{kind} {' and '.join(limits)}" if limits else kind


def _limits(metadata: Iterable[Any]) -> list[str]:
    found = []
    for one in metadata:
        if isinstance(one, FieldInfo):
            found += _limits(one.metadata)
        found += [
            f"{words} {getattr(one, name):g}"
            for words, (kind, name) in _LIMITS.items()
            if isinstance(one, kind)
        ]
    return found


def _shown(value: Any) -> str:
    """A default as an override writes it."""
    if value is _REQUIRED:
        return "required"
    if isinstance(value, DoorConfig):
        return value.name
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if text and text.isprintable() else json.dumps(text)


def _docstring(section: type[BaseModel], name: str) -> str:
    """What stands below the field in the class that declares it, on one line."""
    for owner in section.__mro__:
        file = getattr(sys.modules[owner.__module__], "__file__", None)
        text = _docstrings(file).get((owner.__name__, name)) if file is not None else None
        if text is not None:
            return " ".join(text.split())
    return ""


@cache
def _docstrings(file: str) -> dict[tuple[str, str], str]:
    """Texts below the fields of a file's classes, by class and field."""
    found = {}
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    for owner in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        for field, below in pairwise(owner.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[owner.name, field.target.id] = str(below.value.value)
    return found
