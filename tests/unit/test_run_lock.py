"""One driver to a run folder, on this machine and on storage that machines share."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airls_ray.errors import RunError
from airls_ray.runs import run_lock
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.run_lock import HEARTBEAT, LOCK, STALE_SECONDS, RunLock

OWNER = """
import sys, time
from pathlib import Path
from airls_ray.runs.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def other_driver(folder: Path) -> Any:
    """A process that owns the folder."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def elsewhere(folder: Path, age: float) -> None:
    """The record of a driver on another machine, with its last sign of life `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    record = {"host": "node7", "machine": "node7 boot", "pid": 41, "time": time.time() - age, "token": "t"}
    (folder / HEARTBEAT).write_text(json.dumps(record))


def no_locks(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_second_driver_is_told_who_is_there(folder: Path, other_driver: Any) -> None:
    with (
        pytest.raises(RunError, match=rf"run is in use by process {other_driver.pid} on .*: wait until"),
        RunLock(folder),
    ):
        pass
    assert (folder / HEARTBEAT).exists()  # the owner's, untouched


def test_a_killed_driver_leaves_nothing_to_remove_by_hand(folder: Path, other_driver: Any) -> None:
    other_driver.kill()
    other_driver.wait()
    assert (folder / LOCK).exists() and (folder / HEARTBEAT).exists()
    with RunLock(folder) as lock:
        lock.check()


def test_what_the_lock_made_is_gone_after_it(folder: Path) -> None:
    with RunLock(folder):
        assert {path.name for path in folder.iterdir()} == {LOCK, HEARTBEAT}
    assert not folder.exists()
    folder.mkdir()
    (folder / "metrics.jsonl").touch()
    with RunLock(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]


def test_a_live_driver_on_another_machine_keeps_the_folder(folder: Path) -> None:
    elsewhere(folder, age=STALE_SECONDS - 30)
    with (
        pytest.raises(RunError, match=r"process 41 on node7: .*unless it is gone: then in (29|30) s"),
        RunLock(folder),
    ):
        pass
    assert json.loads((folder / HEARTBEAT).read_text())["host"] == "node7"


def test_a_driver_that_was_silent_for_minutes_loses_the_folder(folder: Path) -> None:
    elsewhere(folder, age=STALE_SECONDS + 1)
    with RunLock(folder):
        assert json.loads((folder / HEARTBEAT).read_text())["host"] != "node7"


def test_a_driver_that_lost_the_folder_writes_nothing_more(folder: Path) -> None:
    run = RunFolder(folder)
    with run.locked():
        assert run._lock is not None
        run._lock._thief = {"pid": 41, "host": "node7"}
        with pytest.raises(RunError, match=r"taken over by process 41 on node7"):
            run.log_metrics(1, {"a": 1.0})
        with pytest.raises(RunError, match=r"taken over"), run.checkpoint_folder(1):
            pass
    assert not run.metrics_file.exists()
    assert run.checkpoints() == []


def test_a_heartbeat_notices_the_other_driver_and_leaves_its_record(folder: Path) -> None:
    with RunLock(folder, beat_seconds=0.01) as lock:
        elsewhere(folder, age=0)
        until = time.monotonic() + 5
        while lock._thief is None and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(RunError, match="node7"):
            lock.check()
    assert json.loads((folder / HEARTBEAT).read_text())["host"] == "node7"


def test_signs_of_life_are_given(folder: Path) -> None:
    with RunLock(folder, beat_seconds=0.01):
        first = json.loads((folder / HEARTBEAT).read_text())["time"]
        until = time.monotonic() + 5
        while json.loads((folder / HEARTBEAT).read_text())["time"] <= first and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads((folder / HEARTBEAT).read_text())["time"] > first


def test_without_file_locks_the_heartbeat_counts(
    folder: Path, other_driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    with pytest.raises(RunError, match=f"process {other_driver.pid}"), RunLock(folder):
        pass
    other_driver.kill()
    other_driver.wait()
    with RunLock(folder) as lock:
        lock.check()


def test_the_second_training_of_a_run_is_refused_before_anything_is_read(
    folder: Path, other_driver: Any
) -> None:
    from actors.train.launch import run_training
    from airls_ray.config import Config

    with pytest.raises(RunError, match="is in use by process"):
        run_training(Config(name=folder.name, output=folder.parent))
