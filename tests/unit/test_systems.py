"""The list of neighbouring papers' systems: what it says to type is taken, and the documents say the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from airls_ray.cli import main as cli
from airls_ray.config.load import load_config
from airls_ray.systems import SYSTEMS, System, find_systems

ROOT = Path(__file__).resolve().parents[2]
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")
OWN = {"2508.14313", "2602.07832"}
"""What is built here is no neighbour."""


@pytest.mark.parametrize("system", [one for one in SYSTEMS if one.settings], ids=lambda one: one.name)
def test_what_the_list_says_to_type_is_taken(system: System) -> None:
    settings = system.settings.replace("URL", '"http://127.0.0.1:1/v1"')
    load_config(ROOT / "configs" / "demo_arithmetic.yaml", shlex.split(settings, posix=True))


def test_the_documents_and_the_list_name_the_same_papers() -> None:
    tables = "\n".join(
        line for line in (ROOT / "docs" / "systems.md").read_text().splitlines() if line.startswith("| ")
    )
    listed = {paper for one in SYSTEMS for paper in one.papers} - OWN
    assert set(PAPER.findall(tables)) == listed
    count = re.search(r"systems of (\d+) neighbouring papers", (ROOT / "README.md").read_text())
    assert count is not None and int(count[1]) == len(listed)


def test_a_word_finds_names_papers_and_settings_in_any_case() -> None:
    assert [one.name for one in find_systems("grm")] == ["GRM"]
    assert {one.name for one in find_systems("2412.01981")} == {
        "implicit PRM, free process rewards", "implicit PRM by DPO (implicit_prm_kto: by KTO)",
    }  # fmt: skip
    assert [one.name for one in find_systems("row_filters=prof")] == ["PROF"]
    assert len(find_systems()) == len(SYSTEMS) == len({one.name for one in SYSTEMS})


def test_the_command_prints_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "systems", "ER-PRM"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ER-PRM (arXiv 2412.11006)",
        "    airls-ray train-prm CONFIG supervised_prm.labels=er_prm",
    ]


def test_a_word_that_nothing_has_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "systems", "nonsense"]) == 2
    assert "no system has 'nonsense'" in capsys.readouterr().err
