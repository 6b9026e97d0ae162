"""Where a field of ours is in a row of somebody else's: paths, alternatives and extractors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.prm800k import right_solution
from airls_ray.data.rows import Row
from airls_ray.errors import ConfigError
from airls_ray.tasks.answers import after_hash, last_boxed

_CALL = re.compile(r"(?P<extractor>[a-z_0-9]+)\((?P<path>.+)\)")
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def _boxed(value: Any) -> Any:
    return last_boxed(value) if isinstance(value, str) else None


def _after_hash(value: Any) -> Any:
    return after_hash(value) if isinstance(value, str) else None


def _last_user(value: Any) -> Any:
    """The content of the last message of the user in a list of messages."""
    messages = value if isinstance(value, list) else []
    texts = [one.get("content") for one in messages if isinstance(one, Mapping) and one.get("role") == "user"]
    return texts[-1] if texts else None


def _joined(value: Any) -> Any:
    """The only element of a list, or all with commas between (a set of answers)."""
    return ", ".join(map(str, value)) or None if isinstance(value, list) else value


def _only(value: Any) -> Any:
    """The only element of a list; anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _worked(value: Any) -> Any:
    """A solution that says more than its answer: it has a box or a `####`."""
    return value if _boxed(value) is not None or _after_hash(value) is not None else None


def _no_calculator(value: Any) -> Any:
    """A GSM8K solution without its `<<48/2=24>>`."""
    return _CALCULATOR.sub("", value) if isinstance(value, str) else value


EXTRACTORS: dict[str, Callable[[Any], Any]] = {
    "after_hash": _after_hash,
    "boxed": _boxed,
    "last_user": _last_user,
    "joined": _joined,
    "only": _only,
    "worked": _worked,
    "no_calculator": _no_calculator,
    "rated_right": right_solution,
}
"""From the value of a field to what is wanted of it; None: it is not there."""


def given_fields(fields: FieldsConfig) -> dict[str, str | list[str]]:
    """Return the places that are set, by the name of the field.

    Raises:
        ConfigError: an extractor is unknown.
    """
    given = {key: value for key, value in fields.model_dump().items() if value is not None}
    for key, value in given.items():
        for path in value if isinstance(value, list) else [value]:
            _check_path(key, path)
    return given


def read_place(row: Row, place: str | list[str]) -> Any:
    """Return the value at a place, or the values at several."""
    return [read_field(row, one) for one in place] if isinstance(place, list) else read_field(row, place)


def read_field(row: Row, path: str) -> Any:
    """Return the value at the first alternative of `path` that is there and not null, else None.

    A part may be a field with a dot in its name, a field of an object, or a position in a list.
    """
    for option in path.split("|"):
        call = _CALL.fullmatch(option)
        value = _follow(row, call["path"] if call else option)
        if value is not None and call:
            value = _extract(call["extractor"], value)
        if value is not None:
            return value
    return None


def _extract(name: str, value: Any) -> Any:
    try:
        return EXTRACTORS[name](value)
    except (AttributeError, IndexError, KeyError, TypeError):  # the value has another shape: not there
        return None


def _follow(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _check_path(field: str, path: str) -> None:
    for option in path.split("|"):
        call = _CALL.fullmatch(option)
        if call and call["extractor"] not in EXTRACTORS:
            raise ConfigError(
                f"task.fields.{field} asks for an unknown extractor {call['extractor']!r}; there are "
                f"{', '.join(EXTRACTORS)}"
            )
