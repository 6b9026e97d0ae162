"""What a resume checks before any actor starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.launch import _check_resume, _inputs
from airls_ray.config import Config
from airls_ray.errors import RunError
from airls_ray.progress import QuietProgress
from airls_ray.run_folder import RunFolder


class Said(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def config(tmp_path: Path, **changes: Any) -> Config:
    file = tmp_path / "train.jsonl"
    task = {"name": "arithmetic", "train_file": file}
    return Config.model_validate({"task": task, "method": "grpo", **changes})


def resume(tmp_path: Path, **changes: Any) -> list[str]:
    """Begin a run with a checkpoint, then check a resume with `changes`; returns what is said."""
    (tmp_path / "train.jsonl").write_text("{}\n")
    run, first, progress = RunFolder(tmp_path / "run"), config(tmp_path), Said()
    run.create(first)
    run.store.inputs = _inputs(first, str(tmp_path / "base"))
    with run.checkpoint_folder(2):
        pass
    now = config(tmp_path, **changes)
    run.store.inputs = _inputs(now, str(tmp_path / "base"))
    _check_resume(now, run, run.checkpoints()[0], progress)
    return progress.lines


def test_an_unchanged_configuration_is_resumed_without_a_word(tmp_path: Path) -> None:
    assert resume(tmp_path) == []


def test_changes_that_may_be_are_said(tmp_path: Path) -> None:
    (line,) = resume(tmp_path, train={"iterations": 99, "storage": "s3://KEY:SECRET@bucket"})
    assert line == "Resuming with another configuration: train.iterations was 60 and is 99"


def test_changes_that_may_not_be_end_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"seed was 0 and is 5"):
        resume(tmp_path, seed=5)


@pytest.mark.parametrize(("content", "fine"), [("{}\n", True), ("{ }\n", False)])
def test_a_data_file_may_move_but_not_change(tmp_path: Path, content: str, fine: bool) -> None:
    moved = tmp_path / "moved.jsonl"
    moved.write_text(content)
    changes = {"task": {"name": "arithmetic", "train_file": moved}}
    if fine:
        (line,) = resume(tmp_path, **changes)
        assert "task.train_file was" in line
    else:
        with pytest.raises(RunError, match=r"content of task\.train_file"):
            resume(tmp_path, **changes)
