"""One door for whatever has several forms: a name in a configuration becomes the object that it names.

A name is that of a built-in, `package.module:attribute`, `path/to/file.py:attribute`, an entry point of the
group `airls_ray.KIND`, or, where a kind takes it, a URL. `find` looks without running anything of the user's
and returns a `Door`, which is plain data: the text of a file travels in it, so that grader children and other
nodes need not have the file. `load` runs it, where it is needed, and checks what came out. Names come from
the user's command line and configuration file alone (`refuse_foreign`).
"""

from __future__ import annotations

import importlib
import linecache
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from airls_ray.door_search import (
    builtins,
    entry_points,
    find_file,
    find_module,
    find_plain,
    find_url,
    source_text,
)
from airls_ray.door_types import Door, Kind, Source, nearest, source_of
from airls_ray.errors import ConfigError, DoorError

__all__ = [
    "KINDS",
    "Door",
    "Kind",
    "Source",
    "builtins",
    "changed",
    "entry_points",
    "find",
    "is_foreign",
    "kind_of",
    "load",
    "nearest",
    "record",
    "refuse_foreign",
    "source_of",
    "source_text",
    "told",
]

KINDS = {
    "code format": "airls_ray.data.format_kind:CODE_FORMAT",
    "credit transform": "airls_ray.credit.kinds:TRANSFORM",
    "data format": "airls_ray.data.format_kind:DATA_FORMAT",
    "grader": "airls_ray.tasks.grader_kind:GRADER",
    "label rule": "airls_ray.prm.label_rule:LABEL_RULE",
    "outcome rule": "airls_ray.grading.outcome_kind:OUTCOME_RULE",
    "outcome term": "airls_ray.credit.kinds:TERM",
    "policy loss": "airls_ray.objectives.loss_kind:POLICY_LOSS",
    "prm objective": "airls_ray.prm.objective:PRM_OBJECTIVE",
    "problem sampler": "airls_ray.data.problem_sampler:PROBLEM_SAMPLER",
    "reward": "airls_ray.grading.reward_calls:REWARD",
    "row filter": "airls_ray.credit.kinds:FILTER",
    "scorer": "airls_ray.search.scorer_kind:SCORER",
    "search": "airls_ray.search.algorithm:SEARCH",
    "step loss": "airls_ray.objectives.step_loss_kind:STEP_LOSS",
    "step rule": "airls_ray.text.steps:STEP_RULE",
    "task": "airls_ray.tasks.own:TASK",
    "tracker": "airls_ray.runs.trackers:TRACKER",
}
"""Where each kind says what it takes."""


def kind_of(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        DoorError: there is none.
    """
    name = name.replace("_", " ")
    if name not in KINDS:
        raise DoorError(f"there is no kind {name!r}{nearest(name, KINDS)}: there are {', '.join(KINDS)}")
    module, _, attribute = KINDS[name].partition(":")
    kind: Kind = getattr(importlib.import_module(module), attribute)
    return kind


def find(kind: Kind, name: str, where: str) -> Door:
    """Return the door of `name` without running anything that it names.

    Args:
        kind: what is looked for.
        name: see the module's docstring; a relative path is relative to the working directory.
        where: the setting, for sentences.

    Raises:
        DoorError: nothing has that name.
    """
    try:
        source = source_of(name)
        if source == "url":
            return find_url(kind, name)
        if source == "file":
            return find_file(kind, name)
        return find_module(kind, name) if source == "module" else find_plain(kind, name)
    except DoorError as error:
        raise DoorError(f"{where}: {error}; {kind.remedy}") from None


def load(door: Door, where: str, options: Mapping[str, Any] | None = None) -> Any:
    """Import what a door names and return what its kind makes of it and of `options`.

    Raises:
        DoorError: it raises at import, lacks the attribute, or has another signature.
    """
    kind = kind_of(door.kind)
    try:
        module = _import(door)
    except (Exception, SystemExit) as error:  # whatever a stranger's file may raise
        said = f"{door.name} raises at import: {told(error, door)}"
        if isinstance(error, ModuleNotFoundError) and f"{door.target}.".startswith(f"{error.name}."):
            said = f"there is no module {error.name}"
        raise DoorError(f"{where}: {said}; {kind.remedy}") from error
    found: Any = module
    for name in door.attribute.split("."):
        if not hasattr(found, name):
            near = nearest(name, [one for one in dir(found) if not one.startswith("_")])
            raise DoorError(f"{where}: {door.target} has no attribute {name!r}{near}; {kind.remedy}")
        found = getattr(found, name)
    try:
        return kind.make(found, options or {})
    except DoorError as error:
        raise DoorError(f"{where}: {door.name} {error}; {kind.remedy}") from None
    except Exception as error:  # of the user's own constructor
        raise DoorError(
            f"{where}: {door.name} raises as it is made: {told(error, door)}; {kind.remedy}"
        ) from error


def told(error: BaseException, door: Door) -> str:
    """Return an error in a line: its class, its text, and the last line of the door's own file."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename == door.target:
        return f"{type(error).__name__}: {error.msg} ({Path(door.target).name} line {error.lineno})"
    own = [frame for frame in frames if frame.filename == door.target] or frames[-1:]
    place = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"


def is_foreign(name: str) -> bool:
    """Whether a name leads to a file, a module or a URL: not to what is installed for this system."""
    return source_of(name) != "built-in"


def refuse_foreign(names: Iterable[str], whose: str) -> None:
    """Refuse names that come from elsewhere than the user himself, since to open them runs their code.

    Raises:
        ConfigError: one names a module, a file or a URL.
    """
    for name in names:
        if is_foreign(name):
            raise ConfigError(
                f"{whose} names code of its own ({name}), which would run here: look at it, and say --trust, "
                "or give your own configuration file"
            )


def record(doors: Iterable[Door]) -> list[dict[str, str]]:
    """Return what a run folder keeps of the doors: which was loaded, and its version or hash."""
    return [
        {"kind": one.kind, "name": one.name, "source": one.source, "version": one.version} for one in doors
    ]


def changed(before: Iterable[Mapping[str, str]], doors: Iterable[Door]) -> list[str]:
    """Return a sentence for each door whose version is another one than in a record."""
    known = {(one["kind"], one["name"]): one["version"] for one in before}
    return [
        f"The {one.kind} {one.name} is another one than before: it was {known[one.kind, one.name]} and is "
        f"{one.version}"
        for one in doors
        if known.get((one.kind, one.name), one.version) != one.version
    ]


def _import(door: Door) -> ModuleType:
    if door.folder and Path(door.folder).is_dir() and door.folder not in sys.path:
        sys.path.append(door.folder)  # for what lies beside it, also when a function imports it later
    if door.source != "file":
        return importlib.import_module(door.target)
    name = f"airls_ray_door_{door.version.rpartition(':')[2]}"
    if name in sys.modules:
        return sys.modules[name]
    lines = door.text.splitlines(keepends=True)
    linecache.cache[door.target] = (len(door.text), None, lines, door.target)  # tracebacks without the file
    code = compile(door.text, door.target, "exec", dont_inherit=True)
    module = ModuleType(name)
    module.__file__ = door.target
    sys.modules[name] = module  # dataclasses and pickles look there
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
