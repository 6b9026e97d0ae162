"""Every place of a configuration that names what may be the user's own code (docs/doors.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from airls_ray.config.door_section import OpenName, Place, open_names
from airls_ray.config.schema import Config
from airls_ray.doors import Door, is_foreign, refuse_foreign
from airls_ray.errors import ConfigError

Section = TypeVar("Section", bound=BaseModel)

_REMOTE_CODE = ("model", "trust_remote_code")
"""The setting that lets code inside a model folder run."""


def all_names(config: Config) -> Iterator[tuple[Place, str]]:
    """Yield every name, those of searches, too."""
    for place, one in open_names(config):
        yield place, one.outside or one.name
    for number, name in enumerate(config.search.algorithms):
        yield ("search", "algorithms", str(number)), name


def find_doors(config: Config, *loaded: str) -> list[Door]:
    """Look up all that a configuration names, as it is now, without running any of it.

    Args:
        config: what names it.
        loaded: settings that the caller loads, such as `task` or `supervised_prm.step_loss`; none: those of
            a run of `train`, all but `supervised_prm`.

    Returns:
        Of what is loaded, all that was named beside what every run loads (a built-in objective, a built-in
        loss); searches and their scorer, which a run does not load, are left out.

    Raises:
        DoorError: a name leads nowhere, or an objective declares what cannot be.
    """
    found = [(place, one.find()) for place, one in open_names(config) if place[0] != "search"]
    config.method.prm_objective.traits()
    return [
        door
        for place, door in found
        if (door.source != "built-in" or place[-1].isdigit()) and _is_loaded(place, loaded)
    ]


def _is_loaded(place: Place, loaded: tuple[str, ...]) -> bool:
    if not loaded:
        return place[0] != "supervised_prm"
    if place[:2] == ("task", "reward"):  # asked in training alone
        return False
    return any(place[: len(keys)] == keys for keys in (tuple(one.split(".")) for one in loaded))


def refuse_names(config: Config, given: Mapping[str, Any], whose: str) -> None:
    """Refuse names that lead to code, and leave for code of a model folder, that are not among the overrides
    `given`, which are the user's own.

    Raises:
        ConfigError: there is one.
    """
    refuse_foreign((name for place, name in all_names(config) if not _holds(given, place)), whose)
    if config.model.trust_remote_code and not _holds(given, _REMOTE_CODE):
        raise ConfigError(
            f"{whose} has model.trust_remote_code: true, so code of a model folder would run here: look at "
            "it, and say --trust, or set model.trust_remote_code yourself"
        )


def without_names(section: Section, given: Mapping[str, Any], above: Place = ()) -> Section:
    """Return the section without what names the user's own code and is not among the overrides `given`, for
    who opens none of it: entries of lists, and settings that have something else in its place. What nothing
    can stand for (a task, a grader) stays, and is refused where it is used. No code of model folders runs."""
    changes: dict[str, Any] = {}
    for field in type(section).model_fields:
        value, place = getattr(section, field), (*above, field)
        if isinstance(value, OpenName) and value.outside and not _holds(given, place):
            if value.unopened:
                changes[field] = type(value)(name=value.unopened, options={})
            else:
                changes[field] = without_names(value, given, place).closed()
        elif isinstance(value, BaseModel):
            changes[field] = without_names(value, given, place)
        elif isinstance(value, list) and not _holds(given, place):
            if any(isinstance(one, OpenName) for one in value):
                changes[field] = [one for one in value if not one.outside]
            elif place == ("search", "algorithms"):
                changes[field] = [name for name in value if not is_foreign(name)]
            elif any(isinstance(one, BaseModel) for one in value):
                changes[field] = [
                    without_names(one, given, (*place, str(at))) for at, one in enumerate(value)
                ]
        elif place == _REMOTE_CODE and not _holds(given, place):
            changes[field] = False
    return section.model_copy(update=changes)


def with_names(section: Section, renamed: Callable[[str], str]) -> Section:
    """Return the section with every name of an `OpenName` below it, or its own, as `renamed` has it."""
    changes: dict[str, Any] = {}
    for field in type(section).model_fields:
        value = getattr(section, field)
        if isinstance(value, BaseModel):
            changes[field] = with_names(value, renamed)
        elif isinstance(value, list) and any(isinstance(one, BaseModel) for one in value):
            changes[field] = [
                with_names(one, renamed) if isinstance(one, BaseModel) else one for one in value
            ]
    if isinstance(section, OpenName):
        changes["name"] = renamed(section.name)
    return section.model_copy(update=changes)


def name_beside(text: str, folder: Path) -> str:
    """Return `file.py:NAME` with its whole path: relative to the working directory, else to `folder`."""
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        return text
    found = next((one for one in (Path(path), folder / path) if one.is_file()), None)
    return text if found is None else f"{os.path.abspath(found)}:{name}"


def _holds(given: Mapping[str, Any], place: Place) -> bool:
    """Whether overrides say what stands at a place; a list of theirs replaces a whole list, and of a section
    they must give the name."""
    at: Any = given
    for key in place:
        if not isinstance(at, Mapping):
            return True
        if key not in at:
            return False
        at = at[key]
    return not isinstance(at, Mapping) or "name" in at
