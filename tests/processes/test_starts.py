"""What a process imports before it says or does something: every second of it is waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airls_ray import doors

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "configs" / "demo_arithmetic.yaml")
HEAVY = {"torch", "transformers", "ray", "vllm"}


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["score", "no/folder/prm", "{rows}", "{out}"], "there is no model folder no/folder/prm"),
        (["score", "{policy}", "{rows}", "{out}", "--form", "magic"], "no PRM form 'magic'"),
        (
            ["score", "{policy}", "{rows}", "{out}", "--form", "marker", "--separator", "x"],
            "a separator is for",
        ),
        (["evaluate-prm", "{rows}", "--prm", "no/folder/prm"], "there is no model folder no/folder/prm"),
        (["search", DEMO, "--policy", "no/folder/policy"], "there is no model folder no/folder/policy"),
        (["search", DEMO, "--policy", "{policy}"], "no PRM is given"),
        (
            ["search", DEMO, "--policy", "{policy}", "--prm", "no/folder/prm"],
            "there is no model folder no/folder",
        ),
        (["serve", DEMO, "--policy", "no/folder/policy"], "there is no model folder no/folder/policy"),
        (["serve", DEMO, "output={out}"], "has no checkpoint to search with"),
        (["evaluate", DEMO, "--policy", "no/folder/policy"], "there is no model folder no/folder/policy"),
        (["evaluate", DEMO, "output={out}"], "has no checkpoint to search with"),
        (["train-prm", DEMO, "--policy", "no/folder/policy"], "there is no model folder no/folder/policy"),
        (
            ["train-prm", DEMO, "--policy", "{policy}", "--labels", "no/l.parquet"],
            "--labels: there is no file no/l",
        ),
        (
            ["train-prm", DEMO, "--policy", "{policy}", "--rollouts", "{rows}", "--rollouts", "no/r.jsonl"],
            "--rollouts: there is no file no/r.jsonl",
        ),
        (["train", DEMO, "output={out}"], "there is no policy to start from"),
        (["train", DEMO, "model.path=no/folder/policy"], "there is no model folder no/folder/policy"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_wrong_path_is_said_before_anything_heavy_is_imported(
    tmp_path: Path, command: list[str], part: str
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["X"]}))
    (policy / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (policy / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "p", "steps": ["a"], "label": -1}\n')
    names = {"policy": policy, "rows": rows, "out": tmp_path / "out"}
    arguments = [one.format(**names) for one in command]
    code = (
        "import sys\nfrom airls_ray.cli import main as cli\n"
        f"code = cli.run({arguments!r})\n"
        f"print(code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert part in done.stderr
    assert done.stdout.splitlines()[-1] == "2 []"


def test_help_names_every_command() -> None:
    command = [sys.executable, "-m", "airls_ray.cli.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    for name in (
        "doctor", "data", "sft", "train", "train-prm", "search", "serve", "score", "evaluate-prm",
        "aggregate", "report", "demo",
    ):  # fmt: skip
        assert f" {name} " in done.stdout


def test_the_command_line_loads_no_heavy_library() -> None:
    code = (
        "import sys, airls_ray.cli.main; "
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_measuring_stored_samples_loads_no_engine_and_no_ray(tmp_path: Path) -> None:
    data = tmp_path / "samples.jsonl"
    data.write_text('{"problem_id": "p", "answer": "4", "correct": true, "scores": [0.6]}\n')
    code = (
        "import sys; from airls_ray.cli import main; "
        f"main.run(['aggregate', {str(data)!r}, '--output', {str(tmp_path / 'out')!r}]); "
        "print('loaded', sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded []" in done.stdout


DRIVERS = (
    "train.launch",
    "commands.demo",
    "commands.sft",
    "commands.evaluate_outputs",
    "search.search",
    "search.serve",
    "verify.verifier",
    "rollout.rollout_worker",
)


def test_drivers_and_verifier_start_without_torch() -> None:
    """They pass references on: seconds of imports in processes that everything else waits for."""
    names = ", ".join(f"actors.{name}" for name in DRIVERS)
    lines = (
        f"import {names}, sys; print(*{{'torch', 'transformers', 'vllm', 'deepspeed'}} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def loaded_after(code: str) -> list[str]:
    """Heavy modules that a fresh process has loaded after `code`."""
    heavy = {*HEAVY, "pydantic", "numpy", "pyarrow", "yaml"}
    lines = f"import airls_ray, sys\n{code}\nprint(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_and_grading_load_nothing_heavy() -> None:
    assert loaded_after("dir(airls_ray)") == []
    assert loaded_after("assert airls_ray.grade('1/2', 'It is 0.5.').outcome") == []


def test_a_search_over_an_endpoint_needs_no_training_stack() -> None:
    blocked = "for name in ('ray', 'vllm', 'deepspeed', 'peft', 'tensorboard'): sys.modules[name] = None"
    code = f"{blocked}\nimport airls_ray.prm.load, airls_ray.search.over_endpoint, airls_ray.text.codec"
    lines = f"import airls_ray, sys\n{code}"
    subprocess.run([sys.executable, "-c", lines], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", sorted({one.partition(":")[0] for one in doors.KINDS.values()}))
def test_a_kind_can_be_the_first_that_is_imported(module: str) -> None:
    """Settings are checked when their classes are made, and look kinds up: no circle may lie between."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
