"""One run, interrupted twice on two machines: Ctrl-C, then SIGKILL in a checkpoint. Nothing of it may show.

The run is that of `airl_run`, from the command line and with a storage. The first machine evaluates nothing,
which must change nothing of the training. It gets Ctrl-C after its first checkpoint. The second fetches the
run from the storage and is killed while it writes a checkpoint. What it left is resumed in this process, and
must end as the run that was left in peace.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config.schema import Config
from airls_ray.files import TEMPORARY
from airls_ray.runs.run_lock import HEARTBEAT
from tests.e2e.conftest import TrainedRun, command, environment, figures, read_lines, train, write_config
from tests.e2e.processes import marked, wait_until

START_SECONDS = 300.0


@dataclass
class Ended:
    """What a command that was ended by a signal left."""

    code: int
    stderr: str
    during: int
    """Processes that lived while it ran."""
    left: list[str]
    """Those that lived on."""
    lines: list[dict[str, Any]]
    """Its metrics."""
    folder: Path
    files: set[str] = field(default_factory=set)
    """Relative paths of all files of the run folder."""


def end_at(
    config: Config, sign: Callable[[], bool], *, number: int, group: bool, resume: bool, every: float
) -> Ended:
    """Start the run from the command line and send signal `number` when `sign` is there."""
    mark, folder = uuid.uuid4().hex, config.output / config.name
    config.output.mkdir(parents=True, exist_ok=True)
    log = config.output / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command("train", write_config(config, config.output), *(["--resume"] if resume else [])),
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            env=environment(AIRLS_TEST_MARK=mark),
            # A shell's background jobs ignore Ctrl-C, and hand that down: these tests may run in one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    during = 0
    try:
        metrics = folder / "metrics.jsonl"
        wait_until(lambda: metrics.exists() or process.poll() is not None, START_SECONDS)
        during = len(marked(mark))
        wait_until(lambda: sign() or process.poll() is not None, START_SECONDS, every)
        assert process.poll() is None, log.read_text()
        # Ctrl-C goes to the whole foreground group of a terminal; a kill hits the command alone.
        (os.killpg if group else os.kill)(process.pid, number)
        process.wait(timeout=120)
        wait_until(lambda: not marked(mark), 120)
        left = [" ".join(p.cmdline())[:120] for p in marked(mark)]
    finally:
        for straggler in marked(mark):
            straggler.kill()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return Ended(process.returncode, log.read_text(), during, left, read_lines(metrics), folder, files)


def on_machine(run: TrainedRun, output: Path, storage: Path, **train: Any) -> Config:
    """The run's configuration with another output folder and a storage."""
    section = run.config.train.model_copy(update={"storage": storage.as_uri(), **train})
    return run.config.model_copy(update={"output": output, "train": section})


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def interrupted(airl_run: TrainedRun, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The first machine: Ctrl-C when its first checkpoint is in the storage."""
    config = on_machine(airl_run, tmp_path_factory.mktemp("first"), storage, evaluate_every=0)
    latest = storage / config.name / "checkpoints" / "latest"
    return end_at(config, latest.exists, number=signal.SIGINT, group=True, resume=False, every=0.1)


@pytest.fixture(scope="module")
def killed(
    airl_run: TrainedRun, storage: Path, interrupted: Ended, tmp_path_factory: pytest.TempPathFactory
) -> Ended:
    """The second machine: SIGKILL while it writes its last checkpoint."""
    config = on_machine(airl_run, tmp_path_factory.mktemp("second"), storage)
    half = config.output / config.name / "checkpoints" / f"{TEMPORARY}iteration_000006" / "policy"
    return end_at(config, half.exists, number=signal.SIGKILL, group=False, resume=True, every=0.005)


@pytest.fixture(scope="module")
def finished(ray_cluster: None, airl_run: TrainedRun, storage: Path, killed: Ended) -> TrainedRun:
    """What was left, resumed to its end."""
    return train(on_machine(airl_run, killed.folder.parent, storage), resume=True)


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(interrupted: Ended) -> None:
    assert interrupted.code == 130, interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    last = interrupted.stderr.splitlines()[-1]
    assert last.startswith("Interrupted: ")
    assert "--resume" in last


def test_ctrl_c_leaves_no_process_behind(interrupted: Ended) -> None:
    assert interrupted.during > 8  # command, Ray, six actors and a grader were seen
    assert interrupted.left == []


def test_the_same_seed_gives_the_same_metrics(airl_run: TrainedRun, interrupted: Ended) -> None:
    assert 2 <= len(interrupted.lines) < 6
    for first, second in zip(airl_run.metrics, interrupted.lines, strict=False):
        assert of_training(second) == of_training(first)
        assert not of_evaluation(second)


def test_a_killed_driver_takes_all_its_processes_along(killed: Ended) -> None:
    assert killed.code == -signal.SIGKILL
    assert killed.left == []


def test_a_kill_in_a_checkpoint_leaves_the_one_before(killed: Ended) -> None:
    assert any(TEMPORARY in name for name in killed.files)
    assert HEARTBEAT in killed.files  # it had no time to clean up
    named = (killed.folder / "checkpoints" / "latest").read_text().strip()
    assert named < "iteration_000006"
    assert f"checkpoints/{named}/checkpoint.json" in killed.files


def test_a_run_that_was_interrupted_twice_ends_as_one_that_was_not(
    airl_run: TrainedRun, killed: Ended, finished: TrainedRun
) -> None:
    assert [line["iteration"] for line in finished.metrics] == [1, 2, 3, 4, 5, 6]
    for first, second in zip(airl_run.metrics, finished.metrics, strict=True):
        assert of_training(second) == of_training(first)
        # The first machine made no evaluation, and ended before the last iteration.
        assert of_evaluation(second) in (of_evaluation(first), {})
    assert of_evaluation(finished.metrics[-1])
    first, second = (json.loads((run.folder / "summary.json").read_text()) for run in (airl_run, finished))
    for key in ("accuracy", "search", "search_base", "prm", "policy_log_prob", "tokens"):
        assert second[key] == first[key]


def test_nothing_half_written_is_left_at_the_end(finished: TrainedRun) -> None:
    assert not [path.name for path in finished.folder.rglob("*") if path.name.startswith((".", "run."))]


def test_the_storage_holds_the_whole_run_at_the_end(finished: TrainedRun, storage: Path) -> None:
    stored = storage / finished.config.name
    assert (stored / "checkpoints" / "latest").read_text() == "iteration_000006\n"
    assert (stored / "report.html").read_bytes() == (finished.folder / "report.html").read_bytes()


def of_training(line: dict[str, Any]) -> dict[str, Any]:
    """The figures of a line but those of storage and evaluation."""
    others = ("storage/", "evaluation/")
    return {name: value for name, value in figures(line).items() if not name.startswith(others)}


def of_evaluation(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name.startswith("evaluation/")}
