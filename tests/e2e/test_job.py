"""Commands as Ray jobs on the nodes of `clusters/local_nodes.py`: exit codes, logs, and nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import REPOSITORY, environment
from tests.e2e.processes import marked, wait_until

SECONDS = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """Address of a cluster's dashboard; nothing of the cluster is left after the test."""
    port, dashboard_port, mark = free_port(), free_port(), uuid.uuid4().hex
    log = tmp_path / "nodes.log"
    with log.open("w") as output:
        nodes = subprocess.Popen(
            [
                sys.executable, "clusters/local_nodes.py", "--nodes=0", f"--port={port}",
                f"--dashboard-port={dashboard_port}", "--store-mib=100",
            ],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            env=job_environment(AIRLS_TEST_MARK=mark), start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "are up" in log.read_text() or nodes.poll() is not None, SECONDS)
        assert nodes.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{dashboard_port}"
        assert nodes.stdin is not None
        nodes.stdin.close()  # the end of its input ends it
        nodes.wait(timeout=SECONDS)
        wait_until(lambda: not marked(mark), 60)
        assert marked(mark) == []
    finally:
        for straggler in marked(mark):
            straggler.kill()


def job_environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**environment(**more), "RAY_AUTH_MODE": "token", "PATH": path}


def submit(address: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a job, and wait for its end."""
    return subprocess.run(
        ["ray", "job", "submit", "--address", address, "--", *command],
        env=job_environment(), capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def test_a_job_has_the_exit_code_and_the_words_of_its_command(dashboard: str, tmp_path: Path) -> None:
    airls_ray = [sys.executable, "-m", "airls_ray.cli.main"]
    failed = submit(dashboard, *airls_ray, "train", str(tmp_path / "missing.yaml"))
    assert failed.returncode != 0
    assert "Error: " in failed.stdout and "missing.yaml" in failed.stdout
    assert "failed" in failed.stdout

    problems = tmp_path / "problems.jsonl"
    config = str(REPOSITORY / "configs" / "demo_arithmetic.yaml")
    done = submit(dashboard, *airls_ray, "data", "make", config, f"--output={problems}", "--problems=5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(problems.read_text().splitlines()) == 5
    assert "succeeded" in done.stdout
