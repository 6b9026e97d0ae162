"""The page of neighbouring systems: each name in it is one that a configuration takes, each file is there."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

from airls_ray.config import load_config

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {"supervised_prm": ["prm.parameterisation=scalar_head"]}
"""What goes with the settings of a section."""


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
def test_a_named_setting_is_one_that_a_configuration_takes(setting: str) -> None:
    if "=" not in setting:
        attrgetter(setting)(load_config(None))
        return
    load_config(None, [*NEEDED.get(setting.partition(".")[0], []), *re.split(r" (?=\w+\.)", setting)])


def test_a_row_has_five_cells_and_its_files_are_there() -> None:
    missing = []
    for row in rows():
        assert len(row) == 5, row
        missing += [one for one in re.findall(r"`(airls_ray/[^`]+)`", row[2]) if not (ROOT / one).exists()]
    assert not missing
