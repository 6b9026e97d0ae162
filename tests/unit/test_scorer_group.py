"""Step scorers that are lost: another one is started, or the others take over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.search.search_parts import ScorerGroup
from airls_ray.errors import ProcessLost, RunError


class Scorer:
    """Scores an item by its number; the first `losses` calls find it gone."""

    def __init__(self, losses: int = 0) -> None:
        self.losses = losses
        self.sent: list[list[int]] = []
        self.asked: list[list[int]] = []
        self.score = SimpleNamespace(remote=self._send)
        self.forget = SimpleNamespace(remote=lambda: lambda: self._answer(None))

    def _send(self, items: list[Any]) -> Any:
        self.sent.append([item.problem for item in items])
        return lambda: self._score(items)

    def _score(self, items: list[Any]) -> Any:
        self.asked.append([item.problem for item in items])
        return self._answer(([(item.problem / 10,) for item in items], [1] * len(items)))

    def _answer(self, value: Any) -> Any:
        if self.losses:
            self.losses -= 1
            raise ProcessLost("step scoring: its process died")
        return value


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    killed: list[Any] = []
    monkeypatch.setattr(cluster, "fetch", lambda ref, *_: ref())
    monkeypatch.setattr(processes, "kill", killed.append)
    return killed


ITEMS: Any = [SimpleNamespace(problem=number) for number in range(4)]
SCORES = [(number / 10,) for number in range(4)]


def test_a_scorer_that_is_lost_is_replaced_and_its_share_scored_again(killed: list[Any]) -> None:
    well, lost, new = Scorer(), Scorer(losses=1), Scorer()
    group = ScorerGroup([well, lost], 60, lambda: new, attempts=3)
    assert group.score(ITEMS) == (SCORES, [1] * 4)
    assert killed == [lost]
    assert well.asked == [[0, 2]]
    assert new.asked == [[1, 3]]
    assert group.score(ITEMS) == (SCORES, [1] * 4)
    group.close()
    assert killed == [lost, well, new]


def test_a_batch_that_kills_every_scorer_is_given_up_and_the_next_one_is_scored(killed: list[Any]) -> None:
    made: list[Scorer] = []

    def restart() -> Scorer:
        made.append(Scorer(losses=len(made) < 2))
        return made[-1]

    group = ScorerGroup([Scorer(losses=1)], 60, restart, attempts=3)
    with pytest.raises(RunError, match="step scorers were lost 3 times in one batch"):
        group.score(ITEMS)
    assert len(killed) == 3
    assert group.score(ITEMS) == (SCORES, [1] * 4)


def test_scorers_that_are_lost_together_are_one_loss(killed: list[Any]) -> None:
    lost = [Scorer(losses=1) for _ in range(3)]
    group = ScorerGroup(lost, 60, Scorer, attempts=3)
    assert group.score(ITEMS) == (SCORES, [1] * 4)
    assert killed == lost


def test_without_replacement_the_others_take_over(killed: list[Any]) -> None:
    group = ScorerGroup([Scorer(losses=1), Scorer()], 60)
    assert group.score(ITEMS) == (SCORES, [1] * 4)
    assert len(killed) == 1
    with pytest.raises(RunError, match="the last step scorer died"):
        ScorerGroup([Scorer(losses=1)], 60).score(ITEMS)


def test_an_idle_scorer_that_is_gone_is_replaced_when_prefixes_are_forgotten() -> None:
    new = Scorer()
    group = ScorerGroup([Scorer(losses=1)], 60, lambda: new, attempts=3)
    group.forget()
    assert group.score(ITEMS) == (SCORES, [1] * 4)
    assert new.asked == [[0, 1, 2, 3]]


def test_all_are_asked_before_the_first_is_waited_for() -> None:
    first, second = Scorer(), Scorer()
    wait = ScorerGroup([first, second], 60).begin(ITEMS)
    assert (first.sent, second.sent) == ([[0, 2]], [[1, 3]])
    assert first.asked == second.asked == []
    assert wait() == (SCORES, [1] * 4)


def test_the_share_of_a_scorer_that_is_lost_before_anybody_waits_is_scored_again(killed: list[Any]) -> None:
    well, lost, new = Scorer(), Scorer(), Scorer()
    wait = ScorerGroup([well, lost], 60, lambda: new, attempts=3).begin(ITEMS)
    lost.losses = 1
    assert wait() == (SCORES, [1] * 4)
    assert killed == [lost]
    assert new.asked == [[1, 3]]
