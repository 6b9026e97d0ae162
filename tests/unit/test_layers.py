"""The rules that keep the layers apart, checked on the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Return the first names of all modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
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


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_imports_no_ray_vllm_or_deepspeed(path):
    assert not imported(path) & {"ray", "vllm", "deepspeed"}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_only_the_command_line_knows_the_actors(path):
    if path.parent.name != "cli":
        assert "actors" not in imported(path)


@pytest.mark.parametrize("folder", ["config", "tasks", "cli"])
def test_modules_that_start_often_import_no_heavy_library(folder):
    for path in sorted((ROOT / "airls_ray" / folder).rglob("*.py")):
        assert not imported(path, top_level_only=True) & {"torch", "transformers", "numpy", "pyarrow"}, path


@pytest.mark.parametrize("path", LIBRARY + ACTORS, ids=name_of)
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_configuration_of_the_repository_loads(path):
    assert load_config(path, []).name == path.stem


@pytest.mark.parametrize("section", sorted(set(sections(Config)), key=str), ids=lambda one: one.__name__)
def test_every_setting_is_described(section):
    bare = [name for name, field in section.model_fields.items() if not (field.description or "").strip()]
    assert not bare
