"""The warm start end to end: Ray Train, DeepSpeed, early stop, the folder it leaves, its errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.commands.sft import run_sft
from actors.learn.sft_state import state_folder
from airls_ray.config.load import dump_config
from airls_ray.config.schema import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import DataError, ResourceError
from airls_ray.models.check import check_model_folder


def config(**changes: Any) -> Config:
    sft = {
        "iterations": 300,
        "problems_per_iteration": 64,
        "evaluate_every": 10,
        "evaluate_problems": 64,
        "target_accuracy": 0.4,
        "learner": {"learning_rate": 3e-3, "resources": {"threads": 1}},
        **changes.pop("sft", {}),
    }
    model = {"hidden_size": 32, "layers": 2, "heads": 1, "intermediate_size": 64, "context_tokens": 64}
    task = {"name": "arithmetic", "operations": 1, "modulus": 3}
    rollout = {"max_response_tokens": 24}
    return Config(**{"task": task, "model": model, "rollout": rollout, "sft": sft, **changes})


@pytest.fixture(scope="module")
def warm_started(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "sft"
    learner = {"learning_rate": 3e-3, "ranks": 2, "zero_stage": 2, "resources": {"threads": 1}}
    return folder, run_sft(config(sft={"learner": learner}), folder, QuietProgress())


def test_it_stops_at_the_target(warm_started: tuple[Path, dict[str, Any]]) -> None:
    summary = warm_started[1]
    assert summary["reached"]
    assert summary["accuracy"] >= 0.4
    assert all(accuracy < 0.4 for _, accuracy in summary["curve"][:-1])
    assert summary["updates"] == summary["curve"][-1][0] < 300


def test_it_leaves_a_model_that_others_load(warm_started: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = warm_started
    check_model_folder(folder, context_tokens=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert json.loads((folder / "sft.json").read_text())["accuracy"] == summary["accuracy"]
    assert not (folder / "ray_train").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["sft"]


def test_it_writes_a_line_per_update(warm_started: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = warm_started
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, summary["updates"] + 1))
    checks = [[line["update"], line["sft/accuracy"]] for line in lines if "sft/accuracy" in line]
    assert checks == summary["curve"]
    assert lines[-1]["sft/loss"] < 0.7 * lines[0]["sft/loss"]


@dataclass(frozen=True)
class WholeRun:
    """24 updates from the model that `warm_started` left, uninterrupted."""

    config: Config
    folder: Path
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def whole(warm_started: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    sft = {"iterations": 24, "problems_per_iteration": 16, "evaluate_every": 4, "evaluate_problems": 16}
    experiment = config(
        model={**config().model.model_dump(), "path": str(warm_started[0])},
        sft={**sft, "target_accuracy": 1.0},
        ray={"object_store_gib": 0.25},
    )
    folder = tmp_path_factory.mktemp("whole") / "sft"
    return WholeRun(experiment, folder, run_sft(experiment, folder, QuietProgress()))


def test_it_goes_on_from_a_given_model(warm_started: tuple[Path, dict[str, Any]], whole: WholeRun) -> None:
    first, start = (
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        for folder in (whole.folder, warm_started[0])
    )
    assert first["sft/loss"] < 0.7 * start["sft/loss"]
    assert whole.summary["updates"] == 24
    assert AutoTokenizer.from_pretrained(whole.folder).eos_token is not None


def test_an_error_of_a_rank_reaches_the_user_in_its_own_words(ray_cluster: None, tmp_path: Path) -> None:
    for name, count in (("train", 20), ("test", 2)):
        rows = [json.dumps({"prompt": f"{name} {n}", "answer": "1"}) for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    files = {"train_file": tmp_path / "train.jsonl", "test_file": tmp_path / "test.jsonl"}
    model = {**config().model.model_dump(), "vocabulary": 300}
    with pytest.raises(DataError, match="no training problem has a trace to learn from"):
        run_sft(config(model=model, task={"name": "file", **files}), tmp_path / "runs/sft", QuietProgress())
    assert not list((tmp_path / "runs").iterdir())


def test_a_trace_that_is_too_long_is_an_error_at_once(tmp_path: Path) -> None:
    short = {**config().model.model_dump(), "context_tokens": 40}
    too_long = {"name": "arithmetic", "operations": 5, "modulus": 3}
    with pytest.raises(DataError, match=r"traces are with the prompt longer than 40 tokens"):
        run_sft(config(model=short, task=too_long), tmp_path / "sft", QuietProgress())
    assert not list(tmp_path.iterdir())


def test_resources_that_no_node_has_are_an_error_at_once(ray_cluster: None, tmp_path: Path) -> None:
    learner = {"resources": {"cpus": 4096}}
    ray = {"resources_deadline_seconds": 0.5}
    with pytest.raises(ResourceError, match="4096 CPU"):
        run_sft(config(sft={"learner": learner}, ray=ray), tmp_path / "sft", QuietProgress())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_warm_start_goes_on_to_the_same_weights(whole: WholeRun, tmp_path: Path) -> None:
    """The interrupted one is a command of its own; before and after it the work is done here."""
    dump_config(whole.config, tmp_path / "experiment.yaml")
    state = state_folder(tmp_path / "broken") / "latest.json"
    command = [sys.executable, "-m", "airls_ray.cli.main", "sft", str(tmp_path / "experiment.yaml")]
    with subprocess.Popen([*command, "--output", str(tmp_path / "broken")]) as process:
        until = time.monotonic() + 240
        while not state.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert state.exists()
    assert not (tmp_path / "broken").exists()
    run_sft(whole.config, tmp_path / "broken", QuietProgress(), resume=True)
    folders = (whole.folder, tmp_path / "broken")
    expected, resumed = (load_file(folder / "model.safetensors") for folder in folders)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert [(folder / "metrics.jsonl").read_text().count("\n") for folder in folders] == [24, 24]
    assert not state.exists()
