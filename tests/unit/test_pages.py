"""Pages of the documentation that list what the code has: nothing of it is missing there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airls_ray import doors

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("kind", doors.KINDS)
def test_every_kind_of_door_has_a_section_or_a_row(kind: str) -> None:
    page = (DOCS / "doors.md").read_text().lower()
    named = re.findall(r"^(?:## (.+)|\| ([^|]+) \|)", page, flags=re.MULTILINE)
    assert any(kind.lower() in heading + row for heading, row in named)
