"""The task reasoning_gym on the package, which is installed into an environment of its own for this test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.peers.environments import python_with

GYM = ("reasoning-gym==0.1.25", "pydantic", "pyyaml")
KNOWN = ["jugs", "tower_of_hanoi", "quantum_lock", "word_ladder", "countdown", "string_manipulation"]
KNOWN += [f"{name}, compact" for name in ("jugs", "quantum_lock", "word_ladder")]
"""Data sets whose steps have a truth."""
PROBLEMS = 30


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    file = tmp_path_factory.mktemp("gym") / "found.json"
    script = Path(__file__).with_name("reasoning_gym_tasks.py")
    python = python_with("reasoning_gym", *GYM)
    command = [python, str(script), str(PROBLEMS), str(file)]
    subprocess.run(command, check=True, timeout=900, env={"PYTHONPATH": str(script.parents[2])})
    read: dict[str, dict[str, float]] = json.loads(file.read_text())
    return read


@pytest.mark.parametrize("dataset", KNOWN)
def test_every_step_of_a_solution_is_right_and_its_score_is_full(
    found: dict[str, dict[str, float]], dataset: str
) -> None:
    assert found[dataset]["traces"] >= 0.9 * PROBLEMS
    assert found[dataset]["right"] == found[dataset]["all_steps_right"] == found[dataset]["traces"]


@pytest.mark.parametrize("dataset", KNOWN)
def test_a_solution_without_its_second_step_is_not_right_all_through(
    found: dict[str, dict[str, float]], dataset: str
) -> None:
    assert found[dataset]["cut_is_right"] == 0


def test_every_data_set_of_the_package_opens_and_gives_what_its_grader_takes(
    found: dict[str, dict[str, float]],
) -> None:
    failed = {name: one["error"] for name, one in found.items() if "error" in one}
    assert len(found) > 100 and not failed
