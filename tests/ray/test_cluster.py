import os
import time

import numpy as np
import pytest

from actors import cluster
from actors.cluster import Demand
from airls_ray.config.schema import Resources
from airls_ray.errors import DataError, ResourceError, RunError

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
    worker = cluster.start_actor(Worker, "slow", SMALL)
    with pytest.raises(RunError, match=r"sampling did not finish within 0\.2 s"):
        cluster.fetch(worker.slow.remote(30), 0.2, "sampling")
    cluster.kill(worker)


def test_a_users_error_in_an_actor_arrives_as_it_was() -> None:
    worker = cluster.start_actor(Worker, "bad", SMALL)
    with pytest.raises(DataError, match="row 3 has no answer; add one"):
        cluster.fetch(worker.bad.remote(), 120, "reading")
    cluster.kill(worker)


def test_a_dead_actor_is_an_error_that_says_whose_process_died() -> None:
    worker = cluster.start_actor(Worker, "dying", SMALL)
    with pytest.raises(RunError, match="grading: its process died"):
        cluster.fetch(worker.die.remote(), 120, "grading")


def test_an_actors_threads_are_set_on_purpose() -> None:
    worker = cluster.start_actor(Worker, "threads", Resources(cpus=0.1, threads=3))
    assert cluster.fetch(worker.variable.remote("OMP_NUM_THREADS"), 120, "asking") == "3"
    cluster.kill(worker)


def test_an_actor_without_gpus_sees_none() -> None:
    worker = cluster.start_actor(Worker, "no-gpu", SMALL, environment={"MARK": "x"})
    assert cluster.fetch(worker.variable.remote("CUDA_VISIBLE_DEVICES"), 120, "asking") == ""
    assert cluster.fetch(worker.variable.remote("MARK"), 120, "asking") == "x"
    cluster.kill(worker)


def test_an_array_from_the_store_is_read_in_place() -> None:
    worker = cluster.start_actor(Worker, "in-place", SMALL)
    ref = cluster.put(np.zeros(1_000_000))
    first = cluster.fetch(worker.address.remote(ref), 120, "asking")
    second = cluster.fetch(worker.address.remote(ref), 120, "asking")
    assert first == second
    assert first[1] is False
    cluster.kill(worker)
