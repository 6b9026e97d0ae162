import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from actors.cluster import cluster, processes
from actors.cluster.cluster import Demand
from actors.learn.groups import LearnerGroup
from airls_ray.config.schema import Resources
from airls_ray.errors import DataError, ProcessLost, ResourceError, RunError

SMALL = Resources(cpus=0.1, threads=1)


class Worker:
    def slow(self, seconds: float) -> None:
        time.sleep(seconds)

    def bad(self) -> None:
        raise DataError("row 3 has no answer; add one")

    def die(self) -> None:
        os._exit(1)

    def variable(self, name: str) -> str:
        return os.environ.get(name, "")

    def address(self, data: np.ndarray) -> tuple[int, bool]:
        return int(data.ctypes.data), bool(data.flags.writeable)


def test_resources_that_no_node_has_are_an_error_that_shows_asked_and_available() -> None:
    demand = Demand("policy learner", Resources(cpus=1, gpus=8), 2)
    with pytest.raises(ResourceError, match=r"policy learner: it asks for 1 CPU, 8 GPU.*0 GPU"):
        cluster.require_resources([demand], deadline_seconds=0.1)


def test_resources_that_are_too_few_in_all_are_an_error_that_shows_both() -> None:
    cpus = os.cpu_count() or 1
    demand = Demand("rollout worker", Resources(cpus=1), cpus + 1)
    with pytest.raises(ResourceError, match=rf"asked {cpus + 1} CPU.*available {cpus} CPU"):
        cluster.require_resources([demand], deadline_seconds=0.1)


def test_resources_that_fit_pass_at_once() -> None:
    cluster.require_resources([Demand("x", SMALL, 2)], deadline_seconds=0.1)


def test_a_call_beyond_its_deadline_is_an_error_in_words() -> None:
    worker = processes.start_actor(Worker, "slow", SMALL)
    with pytest.raises(RunError, match=r"sampling did not finish within 0\.2 s"):
        cluster.fetch(worker.slow.remote(30), 0.2, "sampling")
    processes.kill(worker)


def test_a_users_error_in_an_actor_arrives_as_it_was() -> None:
    worker = processes.start_actor(Worker, "bad", SMALL)
    with pytest.raises(DataError, match="row 3 has no answer; add one"):
        cluster.fetch(worker.bad.remote(), 120, "reading")
    processes.kill(worker)


def test_a_dead_actor_is_an_error_that_says_whose_process_died() -> None:
    worker = processes.start_actor(Worker, "dying", SMALL)
    with pytest.raises(RunError, match=r"grading: its process died \(Worker dying: "):
        cluster.fetch(worker.die.remote(), 120, "grading")


class Rank:
    """One that dies after a while, or one whose collective fails for that, or by itself."""

    def __init__(self, waits: float, dies: bool) -> None:
        self._waits, self._dies = waits, dies

    def update(self) -> None:
        time.sleep(self._waits)
        if self._dies:
            os._exit(1)
        raise RuntimeError("Connection reset by peer")


@pytest.mark.parametrize(("dies", "error"), [(True, ProcessLost), (False, RayTaskError)])
def test_a_rank_that_dies_is_what_is_told_though_another_ones_collective_fails_sooner(
    started: list[Any], dies: bool, error: type[Exception]
) -> None:
    started += [processes.start_actor(Rank, "", SMALL, *one) for one in ((0.0, False), (0.5, dies))]
    with pytest.raises(error):
        LearnerGroup("policy learner", started, 30).finish("update")


def test_an_actors_threads_are_set_on_purpose() -> None:
    worker = processes.start_actor(Worker, "threads", Resources(cpus=0.1, threads=3))
    assert cluster.fetch(worker.variable.remote("OMP_NUM_THREADS"), 120, "asking") == "3"
    processes.kill(worker)


def test_an_actor_without_gpus_sees_none() -> None:
    worker = processes.start_actor(Worker, "no-gpu", SMALL, environment={"MARK": "x"})
    assert cluster.fetch(worker.variable.remote("CUDA_VISIBLE_DEVICES"), 120, "asking") == ""
    assert cluster.fetch(worker.variable.remote("MARK"), 120, "asking") == "x"
    processes.kill(worker)


def test_an_array_from_the_store_is_read_in_place() -> None:
    worker = processes.start_actor(Worker, "in-place", SMALL)
    ref = cluster.put(np.zeros(1_000_000))
    first = cluster.fetch(worker.address.remote(ref), 120, "asking")
    second = cluster.fetch(worker.address.remote(ref), 120, "asking")
    assert first == second
    assert first[1] is False
    processes.kill(worker)


def test_a_signal_to_the_commands_process_group_reaches_no_process_of_rays_own() -> None:
    """Batch systems end a command so; what it still asks of Ray must be answered."""
    ours = {
        process.process.pid
        for kind in ray._private.worker._global_node.all_processes.values()
        for process in kind
    }
    assert len(ours) >= 2  # at least the raylet and the control store
    assert os.getpgrp() not in {os.getpgid(pid) for pid in ours}


def test_a_cluster_of_our_own_leaves_no_token_behind(tmp_path: Path) -> None:
    """A file in the home folder would turn token mode on in every later `ray start`."""
    code = (
        "import os\n"
        "from actors.cluster import cluster, processes\n"
        "from airls_ray.config.schema import RayConfig, Resources\n"
        "from tests.ray.test_cluster import Worker\n"
        "cluster.connect(RayConfig(object_store_gib=0.1))\n"
        "assert os.environ['RAY_AUTH_MODE'] == 'token'\n"
        "worker = processes.start_actor(Worker, '', Resources(cpus=0.1, threads=1))\n"
        "print(cluster.fetch(worker.variable.remote('OMP_NUM_THREADS'), 120, 'asking'))\n"
        "cluster.disconnect()\n"
        "assert not any(name.startswith('RAY_AUTH') for name in os.environ)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.split() == ["1"], done.stderr
    assert not list(tmp_path.rglob("auth_token"))
