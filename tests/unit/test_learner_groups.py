"""How the loop calls the actors that learn: what waits for what, with whose deadline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from actors.cluster import cluster
from actors.learn.groups import Lesson, PolicyGroup, PRMGroup

DEADLINE = 900.0


class Rank:
    """A learner's rank, whose calls are written down."""

    def __init__(self, calls: list[tuple[str, float | None]]) -> None:
        self._calls = calls

    def __getattr__(self, call: str) -> Any:
        def remote(*arguments: Any) -> str:
            self._calls.append((call, None))
            return call

        return SimpleNamespace(remote=remote)


@pytest.mark.parametrize(("ranks", "waited"), [(1, 0), (3, 2)])
def test_an_export_waits_for_the_ranks_that_gather_with_the_first_and_not_for_the_weights(
    monkeypatch: pytest.MonkeyPatch, ranks: int, waited: int
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(cluster, "fetch", lambda refs, *_: seen.extend(refs))
    assert PolicyGroup("policy learner", [Rank([])] * ranks, DEADLINE).export() == "export_weights"
    assert len(seen) == waited


def test_the_prm_learns_when_the_policys_log_probabilities_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader waits five minutes for a table; the policy learner may take as long as its deadline says."""
    calls: list[tuple[str, float | None]] = []

    def fetch(refs: Any, deadline: float, what: str, until: float | None = None) -> list[dict[str, float]]:
        calls.extend((ref, deadline) for ref in refs)
        return [{}]

    monkeypatch.setattr(cluster, "fetch", fetch)
    policy = PolicyGroup("policy learner", [Rank(calls)], DEADLINE)
    prm = PRMGroup([Rank(calls)], policy, traces=True, replay=True, deadline_seconds=DEADLINE)
    prm.learn(Lesson(pa.table({"problem_id": ["a"]}), [], None, [], 0))
    update = calls.index(("update", None))
    assert calls.index(("trace_log_probs", DEADLINE)) < update
    assert calls.index(("replay_log_probs", DEADLINE)) < update
