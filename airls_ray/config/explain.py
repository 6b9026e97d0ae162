"""Turn pydantic's validation errors into one sentence: which key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from airls_ray.config.foreign_keys import answer_to, answer_to_part
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import OWN

_SHOWN = 60  # characters of a given value


def explain(
    error: ValidationError, given: Mapping[str, Any], overrides: Mapping[str, Any], path: Path | None
) -> str:
    """Return one sentence on the first mistake of `error`, and how many more there are.

    Args:
        error: What `Config.model_validate(given)` raised.
        given: Files and overrides merged.
        overrides: The overrides alone, to name the place of the mistake.
        path: The configuration file, if there is one.
    """
    details = error.errors()
    # An unknown key is often the cause of the others (a required key "missing" under its right name).
    first = min(details, key=lambda one: one["type"] != "extra_forbidden")
    keys, section = _resolve(first["loc"], given)
    from_file = _holds(given, keys) and not _holds(overrides, keys) if keys else not overrides
    place = f"{path}: " if path is not None and from_file else ""
    count = len(details) - 1
    more = f" (and {count} more mistake{'s' if count > 1 else ''})" if count else ""
    return place + _sentence(first, keys, section, given) + more


def _sentence(
    detail: ErrorDetails, keys: list[str], section: type[BaseModel] | None, given: Mapping[str, Any]
) -> str:
    key, kind, message = ".".join(keys), detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return _unknown(keys, section, given)
    if kind == "missing":
        return f"{key} is missing; it must be set"
    if kind == "value_error":
        rule = str(detail.get("ctx", {}).get("error", message))
        return rule if not keys or rule.startswith(keys[0] + ".") else f"{key}: {rule}"
    shown = repr(detail["input"])
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + " ..."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key or 'the configuration'} must be a section with keys of its own, but is {shown}"
    if kind == "union_tag_invalid":
        context = detail.get("ctx", {})
        return f"{key}.name must be one of {context.get('expected_tags')}, but is {context.get('tag')!r}"
    allowed = message.replace("Input should be a valid ", "a ").replace("Input should be ", "")
    allowed = allowed.replace("String should ", "a string that should ").replace("a integer", "an integer")
    allowed = re.sub(r"^(?:List|Tuple|Set) should have (.+) after validation.*", r"a list of \1", allowed)
    if kind.endswith(("_parsing", "_type", "_from_float")):
        allowed = allowed.split(", ")[0]
    return f"{key} must be {allowed}, but is {shown}"


def _unknown(keys: list[str], section: type[BaseModel] | None, given: Mapping[str, Any]) -> str:
    """Say what another package's key is here, else name the nearest known key of the level, else one of that
    name elsewhere, else all of the level."""
    known = list(section.model_fields) if section is not None else []
    key, name, parent = ".".join(keys), keys[-1], ".".join(keys[:-1])
    chosen = _at(given, keys[:-1])
    chosen = chosen.get("name") if isinstance(chosen, Mapping) and "name" in known else None
    owners = [_tag(one) for one in _alternatives(section) if name in one.model_fields]
    if owners and section is not None and "name" in known:
        chosen = chosen or _tag(section)
        fields = ", ".join(one for one in known if one != "name")
        return (
            f"{key} belongs to {parent}={owners[0]}, but {parent}.name is {chosen}, which has {fields} "
            f"(`{parent}={chosen}` starts the section anew)"
        )
    theirs = answer_to(key, _at(given, keys))
    if theirs:
        return f"unknown key {key}; {theirs}"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown key {key}; did you mean {'.'.join([*keys[:-1], near[0]])}?"
    elsewhere = [path for path in _leaves(Config) if path.split(".")[-1] == name]
    if elsewhere:
        return f"unknown key {key}; did you mean {' or '.join(elsewhere[:3])}?"
    part = answer_to_part(key)
    if part:
        return f"unknown key {key}; {part}"
    return f"unknown key {key}; {parent or 'the configuration'} has {', '.join(known)}"


def _resolve(loc: Sequence[int | str], given: Any) -> tuple[list[str], type[BaseModel] | None]:
    """Return pydantic's `loc` as key names, without union tags, and the section that holds the last one."""
    keys: list[str] = []
    options: list[type[BaseModel]] = [Config]
    holder: type[BaseModel] | None = Config
    for part in loc:
        if len(options) > 1:  # a tagged union: this part of `loc` is the tag, not a key
            options = [one for one in options if _tag(one) == part]
            continue
        keys.append(str(part))
        if isinstance(part, int):  # an entry of a list of sections
            continue
        holder = options[0] if options else None
        field = holder.model_fields.get(str(part)) if holder is not None else None
        options = _models(field.annotation) if field is not None else []
    return keys, holder


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a field may hold: none for a plain value, several for a union."""
    found = [annotation, *get_args(annotation)]
    found = [one.__origin__ if get_origin(one) is Annotated else one for one in found]
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]


def _tag(section: type[BaseModel]) -> str:
    """Return the `name` that selects this member of a union."""
    literal = get_args(section.model_fields["name"].annotation)
    return str(literal[0]) if literal else OWN


def _alternatives(section: type[BaseModel] | None) -> list[type[BaseModel]]:
    """Return the other members of the union that `section` belongs to."""
    for field in Config.model_fields.values():
        options = _models(field.annotation)
        if len(options) > 1 and section in options:
            return [one for one in options if one is not section]
    return []


def known_keys() -> set[str]:
    """Return the paths of all settings, those of every task included."""
    return set(_leaves(Config))


def _leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        options = _models(field.annotation)
        if not options:
            yield prefix + name
        for option in options:
            yield from _leaves(option, f"{prefix}{name}.")


def _at(tree: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _holds(tree: Any, keys: Sequence[str]) -> bool:
    """Whether `keys` lead somewhere in `tree`."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True
