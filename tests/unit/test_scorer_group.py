"""Several scorers as one: what they are asked is on its way before anybody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.search.search_parts import ScorerGroup
from airls_ray.errors import ProcessLost, RunError
from airls_ray.search.scoring import Continuation, Scores

ITEMS = [Continuation((9, 3), (3 + at,), (1,), (-0.1,), problem=at % 5) for at in range(12)]
WANTED: Scores = ([((3 + at) / 100,) for at in range(12)], [1] * 12)


@dataclass
class Scorer:
    """An actor whose answers come when they are fetched, or never."""

    lost: bool = False
    asked: list[list[int]] = field(default_factory=list)
    """Problems of each call."""

    @property
    def score(self) -> Any:
        return SimpleNamespace(remote=self._begin)

    def _begin(self, items: Sequence[Continuation]) -> Callable[[], Scores]:
        self.asked.append([item.problem for item in items])
        return lambda: self._answer(items)

    def _answer(self, items: Sequence[Continuation]) -> Scores:
        if self.lost:
            raise ProcessLost("it died")
        return [(item.tokens[0] / 100,) for item in items], [1] * len(items)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "fetch", lambda ref, deadline, what: ref())
    monkeypatch.setattr(processes, "kill", lambda actor: None)


def test_all_are_asked_before_the_first_is_waited_for() -> None:
    actors = [Scorer(), Scorer()]
    wait = ScorerGroup(actors, 1.0).begin(ITEMS)
    assert [actor.asked for actor in actors] == [[[0, 2, 4, 0, 2, 4, 0]], [[1, 3, 1, 3, 1]]]
    assert wait() == WANTED


@pytest.mark.parametrize("restarts", [True, False])
def test_the_share_of_a_scorer_that_dies_meanwhile_is_scored_again(restarts: bool) -> None:
    dying, well, spare = Scorer(), Scorer(), Scorer()
    group = ScorerGroup([dying, well], 1.0, (lambda: spare) if restarts else None, attempts=3)
    wait = group.begin(ITEMS)
    dying.lost = True
    assert wait() == WANTED
    again = spare.asked if restarts else well.asked[1:]
    assert again == dying.asked


def test_scorers_that_die_again_and_again_end_the_batch() -> None:
    group = ScorerGroup([Scorer(lost=True)], 1.0, lambda: Scorer(lost=True), attempts=2)
    wait = group.begin(ITEMS)
    with pytest.raises(RunError, match="lost 2 times"):
        wait()
