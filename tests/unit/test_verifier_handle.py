"""Processes that keep no state are started again where they are lost, by whichever thread asks them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.learn.groups import ReferenceGroup
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.errors import ProcessLost


class Actor:
    """Its calls return itself: whom the answer is waited for from."""

    def __getattr__(self, call: str) -> Any:
        return type("Call", (), {"remote": lambda _, *arguments: self})()


class Cluster:
    """The first actor is dead; while one thread waits for it, another one asks and finds out, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[Actor] = []
        self.killed: list[Actor] = []
        self.meanwhile: Callable[[], object] | None = None
        monkeypatch.setattr(cluster, "fetch", self.wait)
        monkeypatch.setattr(cluster, "wait_done", self.wait)
        monkeypatch.setattr(processes, "kill", self.killed.append)

    def start(self) -> Actor:
        self.started.append(Actor())
        return self.started[-1]

    def wait(self, answer: Any, deadline: float, what: str) -> Any:
        ask, self.meanwhile = self.meanwhile, None
        if ask is not None:
            ask()
        asked = answer[0] if isinstance(answer, list) else answer
        if asked is self.started[0] or asked in self.killed:
            raise ProcessLost("its process died")
        return answer


def test_one_death_of_the_verifier_is_one_restart_though_two_threads_find_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Cluster(monkeypatch)
    handle = VerifierHandle(fake.start(), 1.0, restart=fake.start, attempts=2)
    fake.meanwhile = lambda: handle.grade([], None)  # type: ignore[arg-type]
    assert handle.call("summarise") is fake.started[1]
    assert fake.killed == fake.started[:1] and len(fake.started) == 2


def test_a_copy_in_another_process_starts_the_verifier_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Cluster(monkeypatch)
    copy = pickle.loads(pickle.dumps(VerifierHandle(None, 1.0, restart=None)))
    vars(copy).update(_handle=fake.start(), _make=fake.start, _attempts=2)
    assert copy.call("summarise") is fake.started[1]


def test_one_death_of_the_reference_server_is_one_restart_though_two_threads_find_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Cluster(monkeypatch)
    group = ReferenceGroup(fake.start, 1.0, attempts=2)
    fake.meanwhile = lambda: group.log_probs([])
    assert group.log_probs([]) == fake.started[1:]
    assert fake.killed == fake.started[:1] and len(fake.started) == 2
