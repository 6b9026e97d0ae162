"""The wheel without an extra, in an environment that has nothing else: no Ray, no vLLM, no DeepSpeed."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

import airls_ray
from tests.peers.environments import pip, python_alone
from tests.unit.endpoint_fakes import END, FakePolicy, served
from tests.unit.prm_folders import PROBLEM, STEPS, qwen_prm
from tests.wheels import ROOT, build_wheel

PROBLEM_OF_THE_SEARCH = f"What is it{END}"
INSTALL = runpy.run_path(str(ROOT / "requirements" / "install.py"))


def run(command: list[Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty folder, with nothing of this checkout on its path."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the core; torch is the CPU's, as `make install` chooses it."""
    (torch,) = [pin for pin in INSTALL["pins"]() if pin.startswith("torch==")]
    found = python_alone(
        "core", [f"{torch}+cpu"], ["--index-url", INSTALL["TORCH_CPU_INDEX"], f"{torch}+cpu"]
    )
    wheel = build_wheel(tmp_path_factory.mktemp("checkout"))
    subprocess.run([found, "-m", "pip", "uninstall", "--quiet", "--yes", "airls-ray"], check=True)
    done = pip(found, "-c", ROOT / "requirements" / "constraints.txt", wheel)
    assert done.returncode == 0, done.stderr[-2000:]
    return found


def test_the_core_grades_scores_and_searches_over_an_endpoint(python: Path, tmp_path: Path) -> None:
    qwen_prm(tmp_path / "prm")
    empty = tmp_path / "empty"
    empty.mkdir()
    script, output = Path(__file__).with_name("core_alone.py"), tmp_path / "found.json"
    with served(FakePolicy()) as url:
        done = run([python, script, tmp_path / "prm", url, PROBLEM_OF_THE_SEARCH, output], empty)
        assert done.returncode == 0, done.stderr[-3000:]
        prm = airls_ray.load_prm(tmp_path / "prm", device="cpu")
        (here,) = airls_ray.search_endpoint(url, [PROBLEM_OF_THE_SEARCH], prm, algorithm="beam", budget=4)
    found = json.loads(output.read_text())
    assert str(python.parents[1]) in found["file"]
    assert found["loaded_by_the_import"] == found["training_stack"] == []
    assert found["outcome"] == 1.0
    assert found["scores"] == pytest.approx(prm.score(PROBLEM, STEPS), abs=1e-6)
    assert [one.response for one in here.candidates] == [text for text, _ in found["candidates"]]
    assert not list(empty.iterdir())


def test_the_command_says_what_it_can_and_what_it_lacks(python: Path, tmp_path: Path) -> None:
    command = str(python.with_name("airls-ray"))
    shown = run([command, "demo", "--help"], tmp_path)
    assert shown.returncode == 0 and "Usage" in shown.stdout, shown.stderr
    refused = run([command, "demo"], tmp_path)
    assert (refused.returncode, "which is not installed" in refused.stderr) == (2, True), refused.stderr
