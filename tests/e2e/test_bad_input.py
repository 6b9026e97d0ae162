"""A user's mistakes on the command line: one sentence on standard error, code 2, soon.

Ctrl-C is in test_interruptions.py, a full disk in tests/unit/test_run_folder.py.
"""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import (
    TASK,
    airls,
    assert_refused,
    base_config,
    make_policy,
    write_config,
)


@pytest.fixture
def experiment(policy_folder: Path, tmp_path: Path) -> Path:
    """A configuration file that would train."""
    return write_config(base_config(policy_folder, tmp_path / "runs"), tmp_path)


@pytest.fixture
def broken(policy_folder: Path, tmp_path: Path) -> Path:
    """A copy of the policy to break."""
    return shutil.copytree(policy_folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.iteration=3", ("train.iteration", "train.iterations")),
        ("train.iterations=many", ("train.iterations", "many")),
        ("train.rollouts_per_problem=1", ("train.rollouts_per_problem", "2")),
    ],
    ids=["key", "type", "range"],
)
def test_a_wrong_setting_names_itself_and_what_would_be_right(
    experiment: Path, override: str, parts: tuple[str, ...]
) -> None:
    assert_refused(["train", experiment, override], *parts)


def test_a_missing_model_folder(experiment: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such"
    assert_refused(["train", experiment, f"model.path={missing}"], f"there is no model folder {missing}")


def test_a_broken_model_configuration(experiment: Path, broken: Path) -> None:
    (broken / "config.json").write_text('{"model_type": "qwen3"')
    assert_refused(["train", experiment, f"model.path={broken}"], "config.json cannot be read")


def test_weights_that_were_cut_short(experiment: Path, broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(["train", experiment, f"model.path={broken}"], "model.safetensors", "copy it again")


def test_a_tokenizer_without_an_end_of_sequence(experiment: Path, broken: Path) -> None:
    file = broken / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    (broken / "special_tokens_map.json").unlink(missing_ok=True)
    assert_refused(["train", experiment, f"model.path={broken}"], "no end-of-sequence token", str(broken))


def test_a_prm_with_another_vocabulary_than_the_policy(experiment: Path, tmp_path: Path) -> None:
    other = make_policy(tmp_path / "other", task={**TASK, "modulus": 7})
    assert_refused(
        ["train", experiment, f"prm.path={other}"], str(other), "vocabulary", "must come from the same"
    )


def test_a_task_that_the_model_was_not_made_for(experiment: Path) -> None:
    assert_refused(["train", experiment, "task.modulus=9"], "lacks 4 tokens of task 'arithmetic'")


def rows(folder: Path, **wrong: Any) -> list[str]:
    """Settings of a task with training and test files of a user's own;
    the second training row gets `wrong` (None: left out)."""
    row = {"prompt": "1+1*1=", "answer": "2", "trace": "1+1=2;2*1=2;"}
    second = {**row, "prompt": "2+1*1=", "answer": "3", **wrong}
    second = {key: value for key, value in second.items() if value is not None}
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    train.write_text("".join(json.dumps(r) + "\n" for r in (row, second)))
    test.write_text(json.dumps({**row, "prompt": "3*1*1=", "answer": "3"}) + "\n")
    return [
        "task=file", f"task.train_file={train}", f"task.test_file={test}", "task.step_delimiter=';'",
        "task.grader=exact",
    ]  # fmt: skip


def test_a_row_without_an_answer_names_file_row_and_field(experiment: Path, tmp_path: Path) -> None:
    task = rows(tmp_path, answer=None)
    where = f"{tmp_path / 'train.jsonl'}, row 2"
    assert_refused(["data", "check", tmp_path / "train.jsonl"], where, "'answer'")
    assert_refused(["train", experiment, *task], where, "'answer'")


def test_a_trace_that_is_longer_than_the_context(experiment: Path, tmp_path: Path) -> None:
    task = rows(tmp_path, trace="1+1=2;" * 6)
    assert_refused(
        ["train", experiment, *task],
        "1 trace is with the prompt longer than 32 tokens (model.context_tokens)",
    )


def test_traces_of_a_built_in_task_that_are_longer_than_the_context(experiment: Path) -> None:
    assert_refused(
        ["train", experiment, "model.context_tokens=18", "rollout.max_response_tokens=10"],
        "217 traces are with the prompt longer than 18 tokens (model.context_tokens)",
    )  # fmt: skip


def test_a_run_is_not_overwritten(experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"iteration": 1}\n')
    assert_refused(["train", experiment], str(run), "--resume")
    assert (run / "metrics.jsonl").read_text() == '{"iteration": 1}\n'


def test_an_address_where_no_cluster_answers(experiment: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = airls("train", experiment, f"ray.address={address}")  # this process may have a cluster
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: no Ray cluster answers at '{address}'")


def test_resources_that_no_node_will_ever_have(experiment: Path) -> None:
    done = airls(
        "train", experiment, "policy.resources.gpus=8", "ray.resources_deadline_seconds=0.5", timeout=90
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: no node can hold a policy learner: it asks for")
    assert "8 GPU" in last
    assert "0 GPU" in last
