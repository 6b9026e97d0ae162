"""What a resume checks before any actor starts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from actors.cluster.monitoring import NoMonitor
from actors.train import launch, tracking
from actors.train.launch import run_training
from actors.train.launch_checks import check_resumed, run_inputs
from actors.train.tracking import LoopState, Tracker
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import ConfigError, Interrupted, RunError
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.trackers import TrackedRun, Trackers


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
    run.store.inputs = run_inputs(first, str(tmp_path / "base"))
    with run.checkpoint_folder(2):
        pass
    now = config(tmp_path, **changes)
    run.store.inputs = run_inputs(now, str(tmp_path / "base"))
    check_resumed(now, run, run.checkpoints()[0], progress)
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


# --------------------------------------------------------- the whole way of a run, with parts that do nothing


class Learner:
    def save(self, model: str, state: str) -> None:
        Path(model).mkdir(parents=True)
        Path(state).mkdir(parents=True)
        (Path(model) / "model.safetensors").write_text("weights")


class FakeParts:
    policy = prm = Learner()
    problems = SimpleNamespace(saved=lambda _: None)
    interrupt_after: int | None = None
    pool = SimpleNamespace(fleet=SimpleNamespace(counts=lambda: {"ready": 1}))

    def wait_for_learners(self) -> None:
        pass

    def close(self) -> None:
        pass


ACCURACY = {2: 0.5, 4: 0.6, 6: 0.55, 8: 0.6, 10: 0.9, 12: 0.3}
"""Of the evaluation, by iteration."""


def fake_train(parts: Any, config: Config, state: LoopState, tracker: Tracker) -> LoopState:
    while not tracker.over(state):
        if state.iteration == parts.interrupt_after:
            raise KeyboardInterrupt
        metrics = {"rollout/response_tokens": 8.0, "time/rollout": 1.0, "time/iteration": 1.0}
        metrics["outcome/mean"] = state.iteration / 10
        if config.evaluates_after(state.iteration + 1):
            metrics["evaluation/accuracy"] = ACCURACY[state.iteration + 1]
        state = state.advanced(state.version + 1, state.position + 32, 8.0)
        state = tracker.record(state, metrics, phase="train", rollouts=[], grades=None, parts=parts)
    return state


def fake_finish(parts: Any, config: Config, run: RunFolder, *_: Any) -> dict[str, Any]:
    run.write_summary({"iterations": config.iterations})
    return run.read_summary()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fake in {
        "connected": lambda _: nullcontext(),
        "start_parts": lambda *_: FakeParts(),
        "base_policy": lambda _: "owner/name",
        "check_data": lambda *_: None,
        "evaluate_policy": lambda *_, **__: None,
        "train": fake_train,
        "Monitor": lambda _: NoMonitor(),
        "finish_run": fake_finish,
    }.items():
        monkeypatch.setattr(launch, name, fake)
    monkeypatch.setattr(tracking, "graded_table", lambda *_: pa.table({"a": [1]}))


def of_run(tmp_path: Path, output: str, iterations: int, **more: Any) -> Config:
    train = {
        "iterations": iterations,
        "checkpoint_every": 2,
        "storage": (tmp_path / "store").as_uri(),
        **more,
    }
    return Config.model_validate({"method": "grpo", "output": tmp_path / output, "train": train})


def test_a_run_goes_on_from_the_storage_on_another_machine(tmp_path: Path, fakes: None) -> None:
    run_training(of_run(tmp_path, "first", 3))
    summary = run_training(of_run(tmp_path, "second", 5, keep_best=1), resume=True)
    assert summary == {"iterations": 5}
    second = tmp_path / "second" / "run"
    lines = RunFolder(second).read_metrics()
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["outcome/mean"] for line in lines] == [0.0, 0.1, 0.2, 0.3, 0.4]
    stored = tmp_path / "store" / "run"
    for name in ("metrics.jsonl", "summary.json", "checkpoints/latest", "config.yaml"):
        assert (stored / name).read_bytes() == (second / name).read_bytes()
    assert (stored / "checkpoints" / "best").read_text() == "iteration_000005\n"
    assert not list(second.glob("run.*"))


def test_trackers_are_told_no_credentials_of_the_storage(
    tmp_path: Path, fakes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[TrackedRun] = []
    monkeypatch.setattr(launch, "open_mirror", lambda *_: None)
    monkeypatch.setattr(Trackers, "start", lambda _, run: told.append(run))
    run_training(of_run(tmp_path, "first", 1, storage="s3://KEY:SECRET@bucket/runs"))
    assert told[0].config["train"]["storage"] == "s3://bucket/runs"


def test_a_resume_of_another_seed_is_refused_and_leaves_the_run_as_it_was(
    tmp_path: Path, fakes: None
) -> None:
    first = of_run(tmp_path, "first", 3)
    run_training(first)
    before = (tmp_path / "first" / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="seed was 0 and is 1"):
        run_training(first.model_copy(update={"seed": 1}), resume=True)
    assert (tmp_path / "first" / "run" / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, fakes: None) -> None:
    first = of_run(tmp_path, "first", 2)
    run_training(first)
    for root in ("first", "store"):
        (tmp_path / root / "run" / "checkpoints" / "iteration_000002" / "checkpoint.json").write_text(
            '{"format": 9}'
        )
    with pytest.raises(RunError, match="checkpoint format 9"):
        run_training(first, resume=True)


BY_ACCURACY = {"best_metric": "evaluation/accuracy", "keep_best": 1, "keep_checkpoints": 1}


def test_the_best_checkpoint_is_that_of_the_best_evaluation(tmp_path: Path, fakes: None) -> None:
    """Checkpoints after every third iteration, evaluations after every second: both after 6 and 12."""
    # Without a storage: a checkpoint that is still being copied goes only when the next one is saved.
    every = {"evaluate_every": 2, "checkpoint_every": 3, "storage": None}
    run_training(of_run(tmp_path, "a", 12, **BY_ACCURACY, **every))
    checkpoints = tmp_path / "a" / "run" / "checkpoints"
    assert (checkpoints / "best").read_text() == "iteration_000006\n"
    assert {path.name for path in checkpoints.iterdir() if path.is_dir()} == {
        "iteration_000006", "iteration_000012",
    }  # fmt: skip


def test_a_resumed_run_ends_early_where_one_that_was_left_in_peace_does(
    tmp_path: Path, fakes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best evaluation is before the checkpoint that the second run goes on from."""
    early = {**BY_ACCURACY, "evaluate_every": 2, "patience": 2, "checkpoint_every": 5, "storage": None}
    said = Said()
    monkeypatch.setattr(launch, "make_progress", lambda: said)
    run_training(of_run(tmp_path, "quiet", 12, **early))
    quiet = RunFolder(tmp_path / "quiet" / "run")
    assert [line["iteration"] for line in quiet.read_metrics()] == list(range(1, 9))
    assert quiet.latest_checkpoint() == quiet.checkpoints_folder / "iteration_000008"
    sentence = "Stopped early after iteration 8: evaluation/accuracy was best at iteration 4 (0.6)"
    assert sum(line.startswith(sentence) for line in said.lines) == 1
    interrupted = of_run(tmp_path, "interrupted", 12, **early)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(FakeParts, "interrupt_after", 6)
        run_training(interrupted)
    folder = RunFolder(tmp_path / "interrupted" / "run")
    assert folder.latest_checkpoint() == folder.checkpoints_folder / "iteration_000005"
    for _ in range(2):  # the second time there is nothing left to do
        run_training(interrupted, resume=True)
        assert folder.read_metrics() == quiet.read_metrics()
    assert said.lines[-1].startswith(f"Resuming {folder.path}: the evaluation comes next. {sentence}")


def test_a_metric_that_no_evaluation_has_is_told_before_anything_starts(tmp_path: Path) -> None:
    wrong = of_run(tmp_path, "a", 4, keep_best=1, evaluate_every=2, best_metric="evaluation/acuracy")
    with pytest.raises(ConfigError, match=r"no metric of this run.*such as evaluation/accuracy"):
        run_training(wrong)
    assert not (tmp_path / "a").exists()


def test_a_storage_that_nothing_knows_is_told_before_anything_starts(tmp_path: Path) -> None:
    config = of_run(tmp_path, "first", 2, storage="nosuch://KEY:SECRET@x/y")
    with pytest.raises(ConfigError, match=r"train\.storage nosuch://x/y: .*Protocol not known") as caught:
        run_training(config)
    assert "SECRET" not in str(caught.value)
    assert not (tmp_path / "first" / "run").exists()
