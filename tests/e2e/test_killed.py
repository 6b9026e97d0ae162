"""A driver that is killed (SIGKILL) while it writes a checkpoint: the one before is good to go on from."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

from airls_ray.files import TEMPORARY
from airls_ray.run_lock import HEARTBEAT
from tests.e2e.conftest import TrainedRun, command, environment, train, write_config
from tests.e2e.test_training import _marked, _wait_until, figures


def test_a_run_that_was_killed_in_a_checkpoint_goes_on_as_if_it_had_not_stopped(
    ray_cluster: None, airl_run: TrainedRun, tmp_path: Path
) -> None:
    config = airl_run.config.model_copy(update={"output": tmp_path})
    run, mark = tmp_path / config.name, uuid.uuid4().hex
    checkpoints = run / "checkpoints"
    half = checkpoints / f"{TEMPORARY}iteration_000004" / "policy"
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command("train", write_config(config, tmp_path)),
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            env=environment(AIRLS_TEST_MARK=mark),
        )  # fmt: skip
    try:
        _wait_until(lambda: half.exists() or process.poll() is not None, 1200, every=0.005)
        assert process.poll() is None, log.read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        _wait_until(lambda: not _marked(mark), 120)
        left = [" ".join(p.cmdline())[:120] for p in _marked(mark)]
    finally:
        for straggler in _marked(mark):
            straggler.kill()
    assert left == []
    assert half.exists() and (run / HEARTBEAT).exists()  # it had no time to clean up
    assert (checkpoints / "latest").read_text().strip() == "iteration_000002"

    resumed = train(config, resume=True)
    assert [line["iteration"] for line in resumed.metrics] == [1, 2, 3, 4, 5, 6]
    for first, second in zip(airl_run.metrics, resumed.metrics, strict=True):
        assert figures(second) == figures(first)
    assert not [path.name for path in run.rglob("*") if path.name.startswith((".", "run."))]
