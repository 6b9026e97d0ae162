import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli.main import run
from airls_ray.config.load import dump_config
from airls_ray.config.schema import Config, RolloutConfig
from airls_ray.errors import RunError
from airls_ray.runs.run_control import RunControl, ask_for_workers, read_status, wait_for_workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dump_config(Config(rollout=RolloutConfig(min_workers=2, max_workers=4)), tmp_path / "config.yaml")
    return tmp_path


def test_the_driver_reads_the_number_that_was_asked_for(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    before = control.wanted_workers()
    ask_for_workers(folder, 3)
    assert (before, control.wanted_workers()) == (None, 3)


def test_a_later_number_replaces_the_first(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    for number in (3, 4):
        ask_for_workers(folder, number)
        os.utime(folder / "control.json", ns=(number, number))
        seen = control.wanted_workers()
    assert seen == 4


def test_two_threads_of_a_driver_write_one_status_after_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one cuts the file that the other is about to put in its place."""
    control, others, inside, replace = RunControl(folder, iterations=5), [], [], os.replace

    def slowly(source: Any, target: Any) -> None:
        others.append(len(inside))
        inside.append(source)
        time.sleep(0.05)
        inside.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    threads = [threading.Thread(target=control.say, kwargs={"iteration": number}) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert others == [0, 0]


def test_a_new_run_forgets_what_the_one_before_was_asked_for(folder: Path) -> None:
    RunControl(folder, iterations=5)
    ask_for_workers(folder, 3)
    assert RunControl(folder, iterations=5).wanted_workers() is None


@pytest.mark.parametrize("workers", [1, 5])
def test_a_number_outside_the_limits_is_refused_with_both(folder: Path, workers: int) -> None:
    RunControl(folder, iterations=5)
    with pytest.raises(RunError, match=r"min_workers=2 and rollout\.max_workers=4"):
        ask_for_workers(folder, workers)


def test_a_run_that_is_over_cannot_be_scaled(folder: Path) -> None:
    RunControl(folder, iterations=5).say(phase="finished")
    with pytest.raises(RunError, match="is finished"):
        ask_for_workers(folder, 3)


def test_a_run_whose_driver_is_gone_cannot_be_scaled(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    control.status.pid = 2**22 + 1  # above the largest process number
    control.say()
    with pytest.raises(RunError, match="without a driver"):
        ask_for_workers(folder, 3)


def test_a_damaged_control_file_is_ignored(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    (folder / "control.json").write_text("{")
    assert control.wanted_workers() is None


def test_the_status_is_what_the_driver_said_last(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    control.say(phase="rollout", iteration=2, workers={"ready": 3, "loading": 1}, last_error="worker died")
    status = read_status(folder)
    assert (status.phase, status.iteration, status.iterations, status.workers, status.last_error) == (
        "rollout", 2, 5, {"ready": 3, "loading": 1}, "worker died",
    )  # fmt: skip


def test_a_status_that_cannot_be_written_does_not_end_the_run(folder: Path) -> None:
    control = RunControl(folder, iterations=5)
    (folder / "status.json").unlink()
    (folder / "status.json").mkdir()
    control.say(phase="rollout")


def test_waiting_ends_when_the_workers_are_there(folder: Path) -> None:
    RunControl(folder, iterations=5).say(workers={"ready": 3, "loading": 0})
    assert wait_for_workers(folder, 3, seconds=0.0)


def test_workers_that_still_load_are_waited_for(folder: Path) -> None:
    RunControl(folder, iterations=5).say(workers={"ready": 2, "loading": 1})
    assert not wait_for_workers(folder, 2, seconds=0.0)


def test_status_shows_phase_iteration_and_workers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunControl(folder, iterations=9).say(
        phase="policy_update", iteration=4, workers={"ready": 2, "loading": 1}
    )
    assert run(["status", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "policy_update" in shown and "4 of 9" in shown and "2 ready, 1 loading" in shown


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scale", str(tmp_path), "2"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
