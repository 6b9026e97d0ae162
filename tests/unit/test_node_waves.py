"""In what order nodes are told of something large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.cluster import cluster
from actors.rollout.fleet import Member
from actors.rollout.node_calls import tell_all, waves
from airls_ray.errors import ProcessLost


def nodes(count: int) -> list[list[Member]]:
    return [[Member(f"worker-{number}", None)] for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_few_nodes_are_told_together(count: int) -> None:
    assert [len(wave) for wave in waves(nodes(count))] == [count]


@pytest.mark.parametrize("count", [5, 7, 8, 31, 100, 128, 256])
def test_a_wave_is_no_larger_than_the_number_of_those_that_have_it(count: int) -> None:
    asked = nodes(count)
    have, told = 1, []
    for wave in waves(asked):
        assert 0 < len(wave) <= have
        have += len(wave)
        told += list(wave)
    assert told == asked


@pytest.mark.parametrize(("count", "most"), [(5, 3), (7, 3), (8, 4), (127, 7), (128, 8)])
def test_there_are_as_few_waves_as_doubling_needs(count: int, most: int) -> None:
    assert len(waves(nodes(count))) == most


class Worker:
    """Keeps in a common list that it was called; some are dead."""

    def __init__(self, name: str, called: list[str], dead: bool) -> None:
        self._name, self._called, self._dead = name, called, dead

    @property
    def take(self) -> Any:
        return self

    def remote(self, *_: Any) -> Iterator[str]:
        self._called.append(self._name)
        return iter([] if self._dead else [self._name])


def test_a_node_that_dies_in_a_wave_keeps_no_other_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def fetch(ref: Iterator[str], *_: Any) -> str:
        try:
            return next(ref)
        except StopIteration:
            raise ProcessLost("it is dead") from None

    monkeypatch.setattr(cluster, "fetch", fetch)
    members = [
        Member(
            f"worker-{number}", Worker(f"worker-{number}", called, number in (0, 5)), node=f"node-{number}"
        )
        for number in range(20)
    ]
    failed = tell_all(members, "take", ["weights"], 60, "a test", large=True)
    assert failed == {"worker-0": "it is dead", "worker-5": "it is dead"}
    assert called == [f"worker-{number}" for number in range(20)]
