"""Work that lost a learner is done again from the last checkpoint."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster import processes
from actors.learn.groups import ReferenceGroup
from actors.train import start
from actors.train.parts import Parts
from actors.train.recovery import Recovery
from actors.train.tracking import LoopState
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import ProcessLost
from airls_ray.runs.run_control import RunControl
from airls_ray.runs.run_folder import RunFolder


def checkpoint(run: RunFolder, iteration: int) -> Path:
    with run.checkpoint_folder(iteration) as folder:
        (folder / "state").mkdir()
        (folder / "state" / "loop.json").write_text(f'{{"iteration": {iteration}}}')
    return run.checkpoints_folder / f"iteration_{iteration:06d}"


def test_what_a_run_started_from_outlives_a_rebuild_of_its_learners(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    start = checkpoint(run, 2)
    run.use(start)  # rollout workers and verifiers that join later read it
    later = checkpoint(run, 4)
    rebuilt_from: list[Path | None] = []

    def rebuild(parts: Any, state: LoopState, folder: Path | None, times: int) -> Any:
        rebuilt_from.append(folder)
        return parts

    config, control = Config.model_validate({"method": "grpo"}), RunControl(tmp_path, 9)
    recovery = Recovery(object(), LoopState(2), config, run, control, rebuild, QuietProgress())  # type: ignore[arg-type]

    def work(parts: Any, state: LoopState) -> None:
        if not rebuilt_from:
            raise ProcessLost("the policy learner died")
        checkpoint(run, 6)

    recovery.work(work)
    assert rebuilt_from == [later]
    assert start.is_dir() and later.is_dir()


class Table:
    """Stands for what the object store has of an iteration."""


def test_what_a_lost_iteration_held_is_given_back_before_it_is_done_again(tmp_path: Path) -> None:
    tables: list[weakref.ref[Table]] = []
    config, control = Config.model_validate({"method": "grpo"}), RunControl(tmp_path, 9)
    run = RunFolder(tmp_path)
    recovery = Recovery(
        object(), LoopState(), config, run, control, lambda parts, *_: parts, QuietProgress()  # type: ignore[arg-type]
    )  # fmt: skip

    def work(parts: Any, state: LoopState) -> Table | None:
        if tables:
            gc.collect()
            return tables[0]()
        table = Table()
        tables.append(weakref.ref(table))
        raise ProcessLost("the policy learner died")

    assert recovery.work(work) is None


class Actor(str):
    """Called by its name."""

    def __getattr__(self, call: str) -> Any:
        return SimpleNamespace(remote=lambda *_: None)


def reference_group(name: str) -> ReferenceGroup:
    return ReferenceGroup(lambda: Actor(name), 1.0, 1)


def test_learners_of_a_rebuild_that_fails_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    monkeypatch.setattr(processes, "kill", killed.append)
    monkeypatch.setattr(processes, "end", killed.append)

    def lost() -> None:
        raise ProcessLost("starting the policy learner: its process died")

    learners = SimpleNamespace(
        policy=None, prm=None, reference=reference_group("new reference"), actors=("new learner",),
        starting=SimpleNamespace(wait=lost),
    )  # fmt: skip
    monkeypatch.setattr(start, "start_learners", lambda *_: learners)
    monkeypatch.setattr(start, "training_problems", lambda *_: None)
    nothing: Any = None
    old = reference_group("old reference")
    parts = Parts(nothing, nothing, nothing, old, nothing, nothing, nothing, learners=("old learner",))
    config, sources = Config.model_validate({"method": "grpo"}), start.Sources("", None, "")
    with pytest.raises(ProcessLost):
        start.restart_learners(parts, config, sources, QuietProgress(), LoopState(), 1)
    assert killed == ["old learner", "old reference", "new learner", "new reference"]
    parts.reference.close()  # at the next rebuild; the process may have another object by then
    assert killed[4:] == []
