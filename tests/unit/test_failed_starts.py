"""A start that fails gives the cluster back what it took: in a notebook or a sweep the next one needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.search import search_setup
from actors.train import start
from actors.train.tracking import LoopState
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import RunError

CONFIG = Config.model_validate({"method": "grpo", "search": {"scorer": "prm", "scorers": 1}})
NOTHING: Any = None


class Actor(str):
    """Called by its name."""

    def __getattr__(self, call: str) -> Any:
        return SimpleNamespace(remote=lambda *_: None)


def fail(*_: Any) -> None:
    raise RunError("0 of 1 rollout workers came up")


def ended_of(module: Any, begin: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What a start ends whose rollout workers do not come up."""
    ended: set[str] = set()
    fleet = SimpleNamespace(step=lambda busy: None, close=lambda: ended.add("workers"))
    monkeypatch.setattr(cluster, "require_resources", lambda *_: None)
    monkeypatch.setattr(processes, "kill", ended.add)
    monkeypatch.setattr(processes, "start_actor", lambda target, *_, **__: Actor(target.rpartition(":")[2]))
    monkeypatch.setattr(module, "make_fleet", lambda *_: fleet)
    monkeypatch.setattr(module, "wait_for_start", lambda *_: None)
    monkeypatch.setattr(module, "wait_for_workers", fail)
    with pytest.raises(RunError, match="0 of 1 rollout workers"):
        begin()
    return ended


def test_a_run_that_does_not_come_up_ends_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = start.Sources("policy", None, "policy")
    ended = ended_of(
        start, lambda: start.start_parts(CONFIG, sources, QuietProgress(), LoopState()), monkeypatch
    )
    assert ended == {"workers", "Verifier", "PolicyLearner"}


def test_a_search_that_does_not_come_up_ends_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, problems = Path("policy"), PROBLEMS.empty_table()
    ended = ended_of(
        search_setup,
        lambda: search_setup.start(CONFIG, folder, folder, problems, NOTHING, QuietProgress()),
        monkeypatch,
    )
    assert ended == {"workers", "Verifier", "StepScorer"}
