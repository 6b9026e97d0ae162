"""Processes that are kept for the next actor of their kind."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import airls_ray
from actors.cluster import cluster, kept, processes
from actors.cluster.kept import kept_processes
from airls_ray.config.schema import Resources
from airls_ray.errors import DataError

SMALL = Resources(cpus=0.1, threads=1)


class Counter:
    """Counts its calls, in a process whose number it tells."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise DataError("a count begins at 0")
        self._count = start

    def add(self) -> tuple[int, int]:
        self._count += 1
        return self._count, os.getpid()


def start(*arguments: Any, resources: Resources = SMALL) -> Any:
    return processes.start_actor(Counter, "counter", resources, *arguments, keep=True)


def add(counter: Any) -> tuple[int, int]:
    count, pid = cluster.fetch(counter.add.remote(), 60, "counting")
    return int(count), int(pid)


def start_and_end(*arguments: Any, resources: Resources = SMALL) -> tuple[Any, int]:
    """An actor that has counted once and done its work, and the number of its process."""
    counter = start(*arguments, resources=resources)
    _, pid = add(counter)
    processes.end(counter)
    return counter, pid


def ends(counter: Any) -> bool:
    """Whether its process ends within a minute: Ray kills it on its own time, and may serve a call before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            add(counter)
        except cluster.ACTOR_FAILURES:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no block is around the tests."""
    monkeypatch.setattr(kept, "_depth", 0)


def test_the_next_actor_gets_the_process_and_not_the_object() -> None:
    with kept_processes():
        _, pid = start_and_end(5)
        assert add(start(0)) == (1, pid)


def test_other_resources_get_another_process() -> None:
    with kept_processes():
        _, pid = start_and_end()
        assert add(start(resources=Resources(cpus=0.1, threads=2)))[1] != pid


def test_outside_the_block_a_process_ends_with_its_actor(outside: None) -> None:
    counter, _ = start_and_end()
    assert ends(counter)


def test_the_block_ends_what_it_kept(outside: None) -> None:
    with kept_processes():
        counter, _ = start_and_end()
        assert kept.idle() == [counter]
    assert ends(counter)


def test_a_process_that_died_is_not_given_to_the_next() -> None:
    with kept_processes():
        _, pid = start_and_end()
        os.kill(pid, 9)
        assert add(start(2))[0] == 3


def test_an_object_that_cannot_be_says_so_itself(outside: None) -> None:
    with kept_processes():
        start_and_end()
        with pytest.raises(DataError, match="a count begins at 0"):
            start(-1)
        assert not kept.idle()


def test_an_idle_process_takes_no_cpus_from_others() -> None:
    cpus = os.cpu_count() or 1
    with kept_processes():
        start_and_end(resources=Resources(cpus=1, threads=1))
        whole = processes.start_actor(Counter, "whole", Resources(cpus=cpus))
        assert add(whole)[0] == 1
        processes.kill(whole)


def test_runs_of_one_cluster_keep_processes(outside: None) -> None:
    with airls_ray.one_cluster():
        _, pid = start_and_end()
        assert add(start())[1] == pid
    assert cluster.is_connected()  # who connected before disconnects
    assert not kept.idle()
