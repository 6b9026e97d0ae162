"""The rules that keep the layers apart, checked on the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from airls_ray.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "airls_ray").rglob("*.py"))
ACTORS = sorted((ROOT / "actors").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LONGEST = 400


@cache
def imports_of(path: Path) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """Return the imports of a file at its top level, and all."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Import, ast.ImportFrom)
    top = [node for node in tree.body if isinstance(node, kinds)]
    return top, [node for node in ast.walk(tree) if isinstance(node, kinds)]


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Return the first names of all modules that a file imports."""
    nodes = imports_of(path)[0 if top_level_only else 1]
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield `section` and all sections below it."""
    yield section
    for field in section.model_fields.values():
        for option in (field.annotation, *get_args(field.annotation)):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from sections(option)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_library_imports_no_ray_vllm_or_deepspeed() -> None:
    assert len(LIBRARY) > 100
    assert not [name_of(path) for path in LIBRARY if imported(path) & {"ray", "vllm", "deepspeed"}]


def test_the_door_for_python_imports_what_it_needs_when_it_is_called():
    for name in ("__init__.py", "api.py", "run_api.py"):
        heavy = {"actors", "numpy", "pyarrow", "pydantic", "torch", "transformers", "yaml"}
        assert not imported(ROOT / "airls_ray" / name, top_level_only=True) & heavy


def test_only_the_command_line_and_the_door_for_python_know_the_actors() -> None:
    know = [path for path in LIBRARY if "actors" in imported(path)]
    strange = [path for path in know if path.parent.name != "cli" and name_of(path) != "airls_ray/run_api.py"]
    assert know and not strange


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def own_imports(path: Path) -> set[str]:
    """Modules of this project that a file names, wherever in it and for types alone, too."""
    found: set[str] = set()
    for node in imports_of(path)[1]:
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= submodules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


MODULES = {module_of(path): path for path in LIBRARY + ACTORS}
ROOMS = ("cluster", "weights", "verify", "rollout", "learn", "train", "commands", "search")
"""Of `actors/`, from the lowest: a module needs its own room and those before it."""


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own_imports(path) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", [path for path in ACTORS if path.parent.name != "actors"], ids=name_of)
def test_a_room_needs_only_the_rooms_below_it(path: Path) -> None:
    above = ROOMS[ROOMS.index(path.parent.name) + 1 :]
    names = {name.split(".")[1] for name in own_imports(path) if name.startswith("actors.")}
    assert not names & set(above)


@pytest.mark.parametrize("folder", ["config", "tasks", "cli"])
def test_modules_that_start_often_import_no_heavy_library(folder):
    for path in sorted((ROOT / "airls_ray" / folder).rglob("*.py")):
        assert not imported(path, top_level_only=True) & {"torch", "transformers", "numpy", "pyarrow"}, path


def test_modules_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY + ACTORS}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_configuration_of_the_repository_loads(path):
    assert load_config(path, []).name == path.stem


@pytest.mark.parametrize("section", sorted(set(sections(Config)), key=str), ids=lambda one: one.__name__)
def test_every_setting_is_described(section):
    bare = [name for name, field in section.model_fields.items() if not (field.description or "").strip()]
    assert not bare
