"""Commands as Ray jobs on the nodes of `clusters/local_nodes.py`: exit codes, logs, and nothing left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from airls_ray.config import load_config
from airls_ray.config.schema import ModelConfig
from airls_ray.models.create import create_policy
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.e2e.conftest import REPOSITORY, environment
from tests.e2e.processes import marked, wait_until

SECONDS = 480


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


TINY = [
    "seed=3", "task.options.numbers=5", "task.test_problems=8", "model.context_tokens=40",
    "rollout.max_response_tokens=16", "rollout.max_workers=1", "rollout.resources.cpus=0",
    "policy.resources.cpus=0", "prm.learner.resources.cpus=0", "verifier.resources.cpus=0",
    "verifier.processes=1",
    "prm.warmup_iterations=1", "train.iterations=1", "train.problems_per_iteration=4",
    "train.rollouts_per_problem=2", "search.problems=4", "search.samples=2",
]  # fmt: skip
"""Settings under which the example takes a minute, on a node that has no processor to give."""


def test_the_example_trains_with_a_users_own_task_and_reward_as_a_job(dashboard: str, tmp_path: Path) -> None:
    examples, policy = REPOSITORY / "examples", tmp_path / "policy"
    task = make_task(load_config(examples / "job_on_a_cluster.yaml", TINY).task)
    build_tokenizer(task, policy)
    model = {"hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 96, "context_tokens": 40}
    create_policy(ModelConfig(**model), TextCodec.from_folder(policy, task), policy, seed=0)

    settings = [f"output={tmp_path / 'runs'}", f"model.path={policy}", *TINY]
    done = subprocess.run(
        [examples / "job_on_a_cluster.sh", "train", *settings],
        cwd=tmp_path, env=job_environment(RAY_API_SERVER_ADDRESS=dashboard),
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    run = tmp_path / "runs" / "job_on_a_cluster"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all("reward/brevity" in line for line in lines)
    opened = json.loads((run / "doors.json").read_text())
    assert {one["name"].rpartition("/")[2] for one in opened} == {
        "own_task.py:Largest",
        "own_reward.py:brevity",
    }
    assert all(one["source"] == "file" for one in opened)
