"""What Ctrl-C and SIGTERM leave of a run, and what a resume says; the loops are real, their parts are not."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from actors.cluster import placement
from actors.cluster.monitoring import NoMonitor
from actors.train import async_loop, launch, loop, tracking
from actors.train.launch import run_training
from actors.train.tracking import LoopState, Stopwatch, Tracker
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import Interrupted, ProcessLost, RunError
from airls_ray.runs.run_folder import RunFolder

STAGES = (
    "rollout",
    "grade",
    "reference",
    "prm_update",
    "prm_score",
    "policy_update",
    "sync",
    "evaluation",
    "measure",
)
LEARNS = STAGES.index("prm_update")


class Learner:
    """Counts its updates, and saves the count."""

    def __init__(self) -> None:
        self.updates = 0
        self.is_lost = False

    def save(self, model: str, state: str) -> None:
        if self.is_lost:
            raise ProcessLost("policy learner (save): its process died")
        Path(model).mkdir(parents=True)
        Path(state).mkdir(parents=True)
        (Path(model) / "updates").write_text(str(self.updates))


class FakeParts:
    def __init__(self) -> None:
        self.policy, self.prm = Learner(), Learner()
        self.pool = SimpleNamespace(fleet=SimpleNamespace(counts=lambda: {"ready": 1}))
        self.problems = SimpleNamespace(saved=lambda _: None)
        self.verifier = self.reference = None

    def wait_for_learners(self) -> None:
        pass

    def close(self) -> None:
        pass


class Said(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Stop:
    """Sends signals in some stages of some iterations."""

    def __init__(self, *when: tuple[int, str], number: int = signal.SIGINT, slow: float = 0.0) -> None:
        self.when, self.number, self.slow = when, number, slow

    def iterate(self, parts: Any, state: LoopState, tracker: Tracker) -> LoopState:
        clock = Stopwatch(tracker.stage)
        for stage in STAGES:
            with clock(stage):
                for one in self.when:
                    if one == (state.iteration + 1, stage):
                        os.kill(os.getpid(), self.number)
                        time.sleep(self.slow)
                parts.prm.updates += stage == "prm_update"
                parts.policy.updates += stage == "policy_update"
        metrics = {
            "rollout/response_tokens": 8.0,
            "time/iteration": 1.0,
            "outcome/mean": 0.5,
            **clock.metrics(),
        }
        state = state.advanced(state.version + 1, state.position + 32, 8.0)
        return tracker.record(state, metrics, phase="train", rollouts=[], grades=None, parts=parts)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """A run whose processes are missing; returns what it says."""
    said = Said()
    for name, fake in {
        "connected": lambda _: nullcontext(),
        "make_progress": lambda: said,
        "start_parts": lambda *_: FakeParts(),
        "base_policy": lambda _: "owner/name",
        "check_data": lambda *_: None,
        "evaluate_policy": lambda *_, **__: None,
        "Monitor": lambda _: NoMonitor(),
        "finish_run": lambda *_: {"done": 1.0},
    }.items():
        monkeypatch.setattr(launch, name, fake)
    monkeypatch.setattr(tracking, "graded_table", lambda *_: pa.table({"a": [1]}))
    return said


def train(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: Stop,
    staleness: int = 0,
    resume: bool = False,
    **more: Any,
) -> RunFolder:
    """Train 20 iterations, with a checkpoint after every fifth, until it ends or is stopped."""

    def synchronous(parts: Any, config: Config, state: LoopState, tracker: Tracker, *, warmup: bool) -> Any:
        return stop.iterate(parts, state, tracker)

    def asynchronous(parts: Any, stream: Any, config: Config, state: LoopState, tracker: Tracker) -> Any:
        return stop.iterate(parts, state, tracker)

    monkeypatch.setattr(loop, "run_iteration", synchronous)
    monkeypatch.setattr(async_loop, "run_iteration", asynchronous)
    monkeypatch.setattr(async_loop, "RolloutStream", lambda *_: nullcontext())
    train = {
        "iterations": 20,
        "checkpoint_every": 5,
        "keep_checkpoints": 9,
        "max_staleness": staleness,
        **more,
    }
    method = {"name": "grpo", "importance_cap": 2.0}
    sections = {"task": {"test_problems": 4}, "method": method, "output": folder, "train": train}
    run_training(Config.model_validate(sections), resume)
    return RunFolder(folder / "run")


def saved(folder: Path) -> dict[int, tuple[int, int, int]]:
    """By checkpoint: iteration of its loop state, updates of policy and PRM."""
    found = {}
    for checkpoint in RunFolder(folder / "run").checkpoints():
        updates = [int((checkpoint / name / "updates").read_text()) for name in ("policy", "prm")]
        found[int(checkpoint.name[-6:])] = (tracking.read_state(checkpoint).iteration, *updates)
    return found


@pytest.mark.parametrize("staleness", [0, 1], ids=["in turns", "ahead"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_leaves_the_last_whole_state(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, stage: str, number: int, staleness: int
) -> None:
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, monkeypatch, Stop((8, stage), number=number), staleness)
    done = 7 if STAGES.index(stage) < LEARNS else 8
    assert saved(tmp_path)[done] == (done, done, done)
    assert max(saved(tmp_path)) == done
    assert f"with --resume iteration {done + 1} of 20 comes next" in str(caught.value)
    assert "done again" not in str(caught.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_stops_at_once_and_says_what_is_lost(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, monkeypatch, Stop((8, "prm_update"), (8, "policy_update")))
    assert max(saved(tmp_path)) == 5
    assert "iteration 6 of 20 comes next (2 iterations are done again)" in str(caught.value)


def test_an_iteration_that_outlasts_the_grace_period_is_not_waited_for(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    with pytest.raises(Interrupted, match="iteration 6 of 20 comes next"):
        train(tmp_path, monkeypatch, Stop((8, "policy_update"), slow=30.0), grace_seconds=0.2)
    assert time.monotonic() - start < 20
    assert max(saved(tmp_path)) == 5


@pytest.mark.parametrize("stage", ["grade", "policy_update"])
def test_learners_that_are_gone_are_not_rebuilt_to_save_them(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Killing(Stop):
        def iterate(self, parts: Any, state: LoopState, tracker: Tracker) -> LoopState:
            parts.policy.is_lost = state.iteration == 7
            return super().iterate(parts, state, tracker)

    with pytest.raises(Interrupted, match="iteration 6 of 20 comes next"):
        train(tmp_path, monkeypatch, Killing((8, stage)))
    assert any("could not be saved" in line for line in said.lines)
    assert not any("rebuilt" in line for line in said.lines)


class Failing(Stop):
    """Fails in a stage of the eighth iteration."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def iterate(self, parts: Any, state: LoopState, tracker: Tracker) -> LoopState:
        if state.iteration == 7:
            tracker.stage(self.stage)
            raise RunError("rollout workers died 6 times in a row")
        return super().iterate(parts, state, tracker)


@pytest.mark.parametrize("staleness", [0, 1], ids=["in turns", "ahead"])
@pytest.mark.parametrize(("stage", "newest"), [("rollout", 7), ("policy_update", 5)])
def test_a_run_that_cannot_go_on_leaves_the_last_whole_state(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, staleness: int, stage: str, newest: int
) -> None:
    with pytest.raises(RunError, match="died 6 times"):
        train(tmp_path, monkeypatch, Failing(stage), staleness)
    assert saved(tmp_path)[newest] == (newest, newest, newest)
    assert max(saved(tmp_path)) == newest


def test_before_anything_is_learned_there_is_nothing_to_save(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted, match="iteration 1 of 20 comes next, since there is no checkpoint"):
        train(tmp_path, monkeypatch, Stop((1, "rollout")))
    assert saved(tmp_path) == {}
    train(tmp_path, monkeypatch, Stop(), resume=True)
    assert any("iteration 1 of 20 comes next" in line for line in said.lines)


def test_a_resume_says_where_it_goes_on(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, monkeypatch, Stop((8, "measure")))
    run = train(tmp_path, monkeypatch, Stop(), resume=True)
    assert f"Resuming {run.path}: iteration 9 of 20 comes next" in said.lines
    assert [line["iteration"] for line in run.read_metrics()] == list(range(1, 21))


def test_a_node_that_drains_brings_one_checkpoint_and_the_run_goes_on(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([frozenset()] * 10 + [frozenset({"a"})] * 1000)
    monkeypatch.setattr(placement, "nodes", lambda: placement.Nodes(frozenset("ab"), next(looks)))
    monkeypatch.setattr("actors.cluster.cluster.is_connected", lambda: True)
    train(tmp_path, monkeypatch, Stop())
    (extra,) = set(saved(tmp_path)) - {5, 10, 15, 20}
    assert saved(tmp_path)[extra] == (extra, extra, extra)
    assert sum("A node is drained" in line for line in said.lines) == 1
