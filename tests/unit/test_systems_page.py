"""The page of neighbouring systems: each name in it is one that a configuration takes, each file is there."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

from airls_ray.config import load_config

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "configs" / "demo_arithmetic.yaml"


def rows() -> list[list[str]]:
    """Cells of the systems' rows."""
    lines = (ROOT / "docs" / "systems.md").read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]
    return [one for one in cells if one[0] != "system"]


def settings() -> list[str]:
    """Every setting that the page names; a bare name behind one is another value of it."""
    found = []
    for row in rows():
        key = ""
        for text in re.findall(r"`([^`]+)`", row[1]):
            key = text.partition("=")[0] if "=" in text else key
            if re.fullmatch(r"\w+(\.\w+)+", text):
                found.append(text)
            elif key:
                found.append(text if "=" in text else f"{key}={text}")
    return sorted(set(found))


@pytest.mark.parametrize("setting", settings())
def test_a_named_setting_is_one_that_the_demo_takes_as_it_stands(setting: str) -> None:
    if "=" not in setting:
        attrgetter(setting)(load_config(DEMO))
        return
    load_config(DEMO, re.split(r" (?=\w+\.)", setting))


def test_every_row_names_a_setting_a_task_or_a_command() -> None:
    named = re.compile(r"`[\w.]+=|`\w+(\.\w+)+`|the task `\w+`|`airls-ray [\w-]+")
    assert not [row for row in rows() if not named.search(row[1])]


def test_a_row_has_five_cells_and_its_files_are_there() -> None:
    missing = []
    for row in rows():
        assert len(row) == 5, row
        missing += [one for one in re.findall(r"`(airls_ray/[^`]+)`", row[2]) if not (ROOT / one).exists()]
    assert not missing
