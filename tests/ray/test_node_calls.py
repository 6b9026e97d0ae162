"""Calls to many workers at once: one a node from the driver, the others from worker to worker."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.rollout.fleet import FixedFleet, Member
from actors.rollout.node_calls import by_node, tell_all
from actors.rollout.rollout_worker import RolloutWorker
from airls_ray.config.schema import Resources
from airls_ray.errors import ConfigError, UserError

HANGS_SECONDS = 8.0


class Worker:
    """Records what it is told, and does what the value asks of it by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Any] = []

    def tell(self, others: Sequence[Any], *arguments: Any) -> list[str | None]:
        self.seen.append(f"tells {len(others)}")
        return RolloutWorker.tell(self, others, *arguments)  # type: ignore[arg-type]

    def take(self, value: Any) -> None:
        what = value.get(self.name) if isinstance(value, dict) else None
        if what == "dies":
            os._exit(1)
        if what == "hangs":
            time.sleep(HANGS_SECONDS)
        if what == "refuses":
            raise ConfigError("it cannot take this")
        self.seen.append(value)

    def forget(self) -> None:
        self.seen.clear()

    def taken(self) -> list[Any]:
        return self.seen


def start_workers(count: int) -> list[Any]:
    resources = Resources(cpus=0.01, threads=1)
    handles = [processes.start_actor(Worker, "", resources, f"rollout-{n}") for n in range(count)]
    cluster.fetch([handle.taken.remote() for handle in handles], 120, "starting")
    return handles


@pytest.fixture(scope="module")
def lasting() -> Iterator[list[Any]]:
    handles = start_workers(5)
    yield handles
    for handle in handles:
        processes.kill(handle)


@pytest.fixture
def five(lasting: list[Any]) -> list[Any]:
    cluster.fetch([handle.forget.remote() for handle in lasting], 60, "forgetting")
    return lasting


@pytest.fixture
def three(started: list[Any]) -> list[Any]:
    """Three that a test may end."""
    started.extend(start_workers(3))
    return started


def members(handles: Sequence[Any], nodes: Sequence[str | None]) -> list[Member]:
    return [
        Member(f"rollout-{number}", handle, node=node)
        for number, (handle, node) in enumerate(zip(handles, nodes, strict=True))
    ]


def taken(handles: Sequence[Any]) -> list[list[Any]]:
    answers: list[list[Any]] = cluster.fetch([one.taken.remote() for one in handles], 60, "asking")
    return answers


def test_the_driver_calls_one_worker_of_each_node(five: list[Any]) -> None:
    assert tell_all(members(five, ["a", "b", "a", "a", "b"]), "take", [1], 60, "a test") == {}
    assert taken(five) == [["tells 2", 1], ["tells 1", 1], [1], [1], [1]]


def test_a_reference_reaches_every_worker_as_its_value(five: list[Any]) -> None:
    nodes = ["a", "a", None, "b", "b"]
    assert tell_all(members(five, nodes), "take", [cluster.put("weights")], 60, "a test") == {}
    assert [seen[-1] for seen in taken(five)] == ["weights"] * 5


def test_workers_of_unknown_nodes_are_called_one_by_one(five: list[Any]) -> None:
    assert tell_all(members(five, [None] * 5), "take", [1], 60, "a test") == {}
    assert taken(five) == [[1]] * 5


def test_a_worker_s_own_sentence_about_its_input_is_passed_on(five: list[Any]) -> None:
    with pytest.raises(UserError, match="it cannot take this"):
        tell_all(members(five, ["a"] * 5), "take", [{"rollout-3": "refuses"}], 60, "a test")


def test_when_the_worker_that_tells_dies_the_others_are_told_all_the_same(three: list[Any]) -> None:
    failed = tell_all(members(three, ["a"] * 3), "take", [{"rollout-0": "dies"}], 60, "a test")
    assert list(failed) == ["rollout-0"]
    assert "its process died" in failed["rollout-0"]
    assert all(seen for seen in taken(three[1:]))


def test_one_that_dies_is_named_and_the_others_are_told(three: list[Any]) -> None:
    failed = tell_all(members(three, ["a"] * 3), "take", [{"rollout-1": "dies"}], 60, "a test")
    assert list(failed) == ["rollout-1"]
    assert len(taken([three[2]])[0]) == 1


def test_one_that_hangs_is_named_and_the_one_that_waits_for_it_is_not(five: list[Any]) -> None:
    failed = tell_all(members(five, ["a"] * 5), "take", [{"rollout-1": "hangs"}], 2, "a test")
    assert list(failed) == ["rollout-1"]
    assert "did not finish within 2 s" in failed["rollout-1"]


def test_a_fixed_fleet_keeps_the_nodes_it_is_given() -> None:
    fleet = FixedFleet(["x", "y", "z"], ["a", "b", "a"])
    assert [[one.handle for one in group] for group in by_node(fleet.ready)] == [["x", "z"], ["y"]]
