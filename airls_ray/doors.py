"""One door for whatever has several forms: a name in a configuration becomes the object that it names.

A name is that of a built-in, `package.module:attribute`, `path/to/file.py:attribute`, an entry point of the
group `airls_ray.KIND`, or, where a kind takes it, a URL. `find` looks without running anything of the user's
and returns a `Door`, which is plain data: the text of a file travels in it, so that grader children and other
nodes need not have the file. `load` runs it, where it is needed, and checks what came out. Names come from
the user's command line and configuration file alone (`refuse_foreign`).
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from airls_ray.errors import ConfigError, DoorError

KINDS = {
    "code format": "airls_ray.data.format_kind:CODE_FORMAT",
    "credit transform": "airls_ray.credit.kinds:TRANSFORM",
    "data format": "airls_ray.data.format_kind:DATA_FORMAT",
    "grader": "airls_ray.tasks.grader_kind:GRADER",
    "label rule": "airls_ray.prm.label_rule:LABEL_RULE",
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


def builtins(kind: Kind) -> dict[str, str]:
    """Name of each built-in and the first line of its docstring; imports none of them."""
    return {path.stem: _first_line(path.read_text(encoding="utf-8")) for path in _files(kind)}


def entry_points(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    """What installed packages offer for a kind, by name."""
    return {one.name: one for one in importlib.metadata.entry_points(group=kind.group)}


def source_of(name: str) -> Source:
    """Return which form a name has; a plain one is a built-in or an entry point."""
    if "://" in name:
        return "url"
    if ":" not in name and not name.endswith(".py"):
        return "built-in"
    return "file" if name.rpartition(":")[0].endswith(".py") or name.endswith(".py") else "module"


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
            return _find_url(kind, name)
        if source == "file":
            return _find_file(kind, name)
        return _find_module(kind, name) if source == "module" else _find_plain(kind, name)
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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean ...?)`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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


def source_text(door: Door) -> str:
    """Return the text of the module that a door names, empty where none is found; runs nothing.

    Raises:
        DoorError: there is no such module.
    """
    if door.source == "file":
        return door.text
    with _on_path(door.folder):
        file = None if door.source == "url" else _module_file(door.target)
    return "" if file is None else file.read_text(encoding="utf-8")


def _files(kind: Kind) -> list[Path]:
    return sorted(path for path in kind.folder.glob("*.py") if not path.name.startswith("_"))


def _find_plain(kind: Kind, name: str) -> Door:
    own = [path.stem for path in _files(kind)]
    if name in own:
        from airls_ray.version import __version__

        return Door(
            kind.name, name, "built-in", f"{kind.package}.{name}", kind.attribute, version=__version__
        )
    offered = entry_points(kind)
    if name in offered:
        entry = offered[name]
        version = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        return Door(
            kind.name, name, "entry point", entry.module, entry.attr or kind.attribute, version=version
        )
    known = [*own, *offered]
    raise DoorError(
        f"there is no {kind.name} {name!r}{nearest(name, known)}: there are {', '.join(known)}, and "
        f"file.py:NAME or package.module:NAME for your own"
    )


def _find_url(kind: Kind, name: str) -> Door:
    if not kind.takes_urls or not name.startswith(("http://", "https://")):
        raise DoorError(f"{name} is no address that a {kind.name} can have")
    return Door(kind.name, name, "url", name)


def _find_file(kind: Kind, name: str) -> Door:
    path_text, colon, attribute = name.rpartition(":")
    if not colon or path_text == "":
        raise DoorError(f"{name} names a file alone: write {name}:NAME with the name of what is in it")
    path = Path(os.path.abspath(Path(path_text).expanduser()))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent
        there = [one.name for one in folder.glob("*.py")] if folder.is_dir() else []
        raise DoorError(f"there is no file {path}{nearest(path.name, there)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DoorError(f"the file {path} cannot be read ({reason})") from None
    digest = _digest(text.encode())
    return Door(
        kind.name, f"{path}:{attribute}", "file", str(path), attribute, text, str(path.parent), digest
    )


def _find_module(kind: Kind, name: str) -> Door:
    target, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*target.split("."), *attribute.split("."))):
        raise DoorError(f"{name!r} is neither package.module:NAME nor file.py:NAME")
    file, here = _module_file(target), str(Path.cwd())
    root = here if file is not None and file.is_relative_to(here) else ""
    version = "" if file is None else _digest(file.read_bytes())
    return Door(kind.name, name, "module", target, attribute, folder=root, version=version)


def _module_file(target: str) -> Path | None:
    """The file of a module, without importing it or the packages above it; None where it has none."""
    names, here = target.split("."), str(Path.cwd())
    with _on_path(here):  # `python -m` has it there, the command has not
        spec = importlib.util.find_spec(names[0])  # of the first name alone: further ones import it
    if spec is None:
        raise DoorError(f"there is no module {names[0]}{nearest(names[0], _modules_here(here))}")
    places = [Path(place) for place in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.origin is not None and Path(spec.origin).is_file() else None
    for number, part in enumerate(names[1:], start=1):
        inside = [path for place in places for path in (place / f"{part}.py", place / part / "__init__.py")]
        file = next((path for path in inside if path.is_file()), None)
        folders = [place / part for place in places if (place / part).is_dir()]
        if file is None and not folders:
            there = [path.stem for place in places for path in place.glob("[!_]*")]
            raise DoorError(f"there is no module {'.'.join(names[: number + 1])}{nearest(part, there)}")
        places = folders
    return file


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
    code = compile(door.text, door.target, "exec")
    module = ModuleType(name)
    module.__file__ = door.target
    sys.modules[name] = module  # dataclasses and pickles look there
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _on_path:
    """Context: a folder is on the import path, behind what was there."""

    def __init__(self, folder: str) -> None:
        self._folder = folder if folder and folder not in sys.path else ""

    def __enter__(self) -> None:
        if self._folder:
            sys.path.append(self._folder)

    def __exit__(self, *_: object) -> None:
        if self._folder:
            sys.path.remove(self._folder)


def _modules_here(folder: str) -> list[str]:
    return [path.stem for path in Path(folder).iterdir() if path.suffix == ".py" or path.is_dir()]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def _first_line(source: str) -> str:
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.splitlines()[0] if text else ""
