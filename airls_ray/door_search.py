"""Where the names of doors lead, found without running what they name."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from airls_ray.door_types import Door, Kind, nearest
from airls_ray.errors import DoorError

_DYNAMIC = {"globals", "vars", "locals", "setattr", "exec", "modules"}
"""Names by which a module may get others that its text does not show."""


def builtins(kind: Kind) -> dict[str, str]:
    """Name of each built-in and the first line of its docstring; imports none of them."""
    return {path.stem: _first_line(path.read_text(encoding="utf-8")) for path in _files(kind)}


def entry_points(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    """What installed packages offer for a kind, by name."""
    return {one.name: one for one in importlib.metadata.entry_points(group=kind.group)}


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


def find_plain(kind: Kind, name: str) -> Door:
    """Return the door of a built-in, or an entry point of an installed package.

    Raises:
        DoorError: there is none of that name.
    """
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


def find_url(kind: Kind, name: str) -> Door:
    """Return the door of an address.

    Raises:
        DoorError: there is none of that name.
    """
    if not kind.takes_urls or not name.startswith(("http://", "https://")):
        raise DoorError(f"{name} is no address that a {kind.name} can have")
    return Door(kind.name, name, "url", name)


def find_file(kind: Kind, name: str) -> Door:
    """Return the door of a file, whose text it takes along.

    Raises:
        DoorError: there is none of that name, it is no Python, or nothing in it has the name.
    """
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
    try:
        names = _top_names(text)
    except SyntaxError as error:
        said = f"SyntaxError: {error.msg} ({path.name} line {error.lineno})"
        raise DoorError(f"{path}:{attribute} raises at import: {said}") from None
    first = attribute.partition(".")[0]
    if names is not None and first not in names:
        near = nearest(first, [one for one in names if not one.startswith("_")])
        raise DoorError(f"{path} has no attribute {first!r}{near}")
    digest = _digest(text.encode())
    return Door(
        kind.name, f"{path}:{attribute}", "file", str(path), attribute, text, str(path.parent), digest
    )


def _top_names(text: str) -> set[str] | None:
    """Return what a module's text binds at its top level; None where that shows only when it runs.

    Raises:
        SyntaxError: it is no Python.
    """
    try:
        tree = ast.parse(text)
    except ValueError:  # a null byte, which Python 3.11 calls so: told where the file is opened
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _DYNAMIC:
            return None
        if isinstance(node, ast.Global):
            names.update(node.names)
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # what is inside is not the module's
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((one.asname or one.name).partition(".")[0] for one in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            names.add(node.name)
        waiting += ast.iter_child_nodes(node)
    return None if names & {"*", "__getattr__"} else names


def find_module(kind: Kind, name: str) -> Door:
    """Return the door of a module.

    Raises:
        DoorError: there is none of that name.
    """
    target, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*target.split("."), *attribute.split("."))):
        raise DoorError(f"{name!r} is neither package.module:NAME nor file.py:NAME")
    file, here = _module_file(target), str(Path.cwd())
    root = here if file is not None and file.is_relative_to(here) else ""
    version = "" if file is None else _digest(file.read_bytes())
    return Door(kind.name, name, "module", target, attribute, folder=root, version=version)


def _module_file(target: str) -> Path | None:
    """Return the file of a module, without importing it or the packages above it; None where it has none.

    Raises:
        DoorError: there is no such module.
    """
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


def _files(kind: Kind) -> list[Path]:
    return sorted(path for path in kind.folder.glob("*.py") if not path.name.startswith("_"))


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
