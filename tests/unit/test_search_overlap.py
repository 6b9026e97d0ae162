"""Two halves of the live problems: one is sampled while the other is scored, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

import airls_ray
from airls_ray.config.search_section import SearchConfig
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.ledger import Limits
from airls_ray.search.live import DriverSettings, Search, SearchProblem
from airls_ray.search.over_endpoint import SearchResult
from airls_ray.search.records import Run, Verdict, make_record
from airls_ray.search.registry import make_searcher, ready_searches
from airls_ray.search.scoring import Continuation, Scores
from tests.unit.driver_fakes import Sums, Words, blank, problems
from tests.unit.endpoint_fakes import Digits, FakePolicy, served

MANY = 7
"""Problems: two halves of different sizes, whose responses have two to four steps."""


@dataclass
class Policy(Words):
    """Of each problem other responses; remembers which problems it samples, and fails where it is told to."""

    events: list[tuple[str, list[int]]] = field(default_factory=list)
    fails: set[int] = field(default_factory=set)
    """Numbers of calls, from 1."""

    def response(self, prompt: Sequence[int], seed: int, done: Sequence[int]) -> list[int]:
        self.steps = 2 + prompt[1] % 3
        return super().response(prompt, seed, done)

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        self.events.append(("sample", sorted(set(owners))))
        found = super().expand(expansions, owners)
        if len(self.calls) in self.fails:
            raise RuntimeError("no engine")
        return found


@dataclass
class PolicyElsewhere(Policy):
    """Samples when it is waited for."""

    def begin(self, expansions: pa.Table, owners: Sequence[int]) -> Callable[[], pa.Table]:
        self.events.append(("begin sampling", sorted(set(owners))))
        return lambda: self.expand(expansions, owners)


class Judge(Sums):
    """Writes its events beside the policy's."""

    def __init__(self, policy: Policy, fails: Sequence[int] = ()) -> None:
        super().__init__()
        self.events, self.fails, self.calls = policy.events, fails, 0

    def score(self, items: Sequence[Continuation]) -> Scores:
        self.events.append(("score", sorted({item.problem for item in items})))
        self.calls += 1
        if self.calls in self.fails:
            raise RuntimeError("no scorer")
        return super().score(items)


class JudgeElsewhere(Judge):
    """Scores when it is waited for."""

    def begin(self, items: Sequence[Continuation]) -> Callable[[], Scores]:
        self.events.append(("begin scoring", sorted({item.problem for item in items})))
        return lambda: self.score(items)


def read(asked: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
    return [str(sum(one) % 3) for one in responses]


def driver_of(
    policy: Policy, judge: Judge, limits: Limits | None = None, overlap: bool = True
) -> SearchDriver:
    settings = DriverSettings(
        limits=limits or Limits(), policy_parameters=10, scorer_parameters=7, overlap=overlap
    )
    return SearchDriver(policy, judge, blank, settings, read)


def run_until_over(driver: SearchDriver, live: list[Search], fails: int = 0) -> None:
    """Tick as often as it takes, `fails` errors included."""
    while live:
        try:
            driver.tick(live)
        except RuntimeError:
            fails -= 1
            assert fails >= 0
        live = [search for search in live if not search.done]
    assert not fails


def records(searches: Sequence[Search], name: str) -> list[dict[str, Any]]:
    """With trees and all costs."""
    run = Run(name, "prm", 8, 0, "best")
    found = []
    for search in searches:
        leaves = search.searcher.leaves(search.state)
        verdicts = [
            Verdict(str(sum(search.state.response(leaf)) % 3), float(leaf % 2), ()) for leaf in leaves
        ]
        found.append(make_record(search, search.searcher, run, "prod", verdicts, "", keep_nodes=True))
    return found


def costs(searches: Sequence[Search]) -> list[dict[str, float]]:
    return [{**search.ledger.figures(), "seconds": 0.0} for search in searches]


@pytest.mark.parametrize("limits", [Limits(), Limits(policy_tokens=40)])
@pytest.mark.parametrize("elsewhere", ["scorer", "policy"])
@pytest.mark.parametrize("name", ready_searches())
def test_trees_records_and_ledgers_are_those_of_all_at_once(
    name: str, elsewhere: str, limits: Limits
) -> None:
    searcher = make_searcher(name, SearchConfig(), 8, "prod")
    together = Policy()
    wanted = run_searches(searcher, problems(MANY), driver_of(together, Judge(together), limits, False))
    policy = PolicyElsewhere() if elsewhere == "policy" else Policy()
    judge = JudgeElsewhere(policy) if elsewhere == "scorer" else Judge(policy)
    found = run_searches(searcher, problems(MANY), driver_of(policy, judge, limits))
    assert policy.calls[0] < together.calls[0]
    assert [one.state for one in found] == [one.state for one in wanted]
    assert costs(found) == costs(wanted)
    assert records(found, name) == records(wanted, name)


def test_one_half_is_scored_while_the_other_is_sampled() -> None:
    policy = Policy()
    found = run_searches(BestOfN(2), problems(5), driver_of(policy, JudgeElsewhere(policy)))
    assert all(search.done for search in found)
    assert policy.events == [
        ("sample", [0, 1, 2]),
        ("begin scoring", [0, 1, 2]),
        ("sample", [3, 4]),
        ("score", [0, 1, 2]),
        ("score", [3, 4]),
    ]


def test_a_policy_elsewhere_samples_one_half_while_the_other_is_scored() -> None:
    policy = PolicyElsewhere()
    run_searches(BestOfN(2), problems(4), driver_of(policy, Judge(policy)))
    assert policy.events == [
        ("sample", [0, 1]),
        ("begin sampling", [2, 3]),
        ("score", [0, 1]),
        ("sample", [2, 3]),
        ("score", [2, 3]),
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_search_waits_two_ticks_for_its_turn(count: int) -> None:
    policy = Policy()
    driver = driver_of(policy, JudgeElsewhere(policy))
    live = [driver.start(Beam(4, 2), problem) for problem in problems(count)]
    ticks = 0
    while live:
        driver.tick(live)
        ticks += 1
        assert all(
            search.done or search.sampled or search.state.rounds >= (ticks - 1) // 2 for search in live
        )
        live = [search for search in live if not search.done]
    assert ticks <= 2 * 4 + 2  # rounds of the longest response, and a tick before and after


@pytest.mark.parametrize(("overlap", "judge"), [(False, JudgeElsewhere), (True, Judge)])
def test_all_are_sampled_at_once_where_it_is_off_or_nothing_is_elsewhere(overlap: bool, judge: Any) -> None:
    policy = Policy()
    run_searches(BestOfN(2), problems(4), driver_of(policy, judge(policy), overlap=overlap))
    assert policy.events == [("sample", [0, 1, 2, 3]), ("score", [0, 1, 2, 3])]


@pytest.mark.parametrize("elsewhere", ["scorer", "policy"])
def test_a_half_that_is_scored_is_told_where_sampling_the_other_fails(elsewhere: str) -> None:
    policy = PolicyElsewhere(fails={2}) if elsewhere == "policy" else Policy(fails={2})
    judge = JudgeElsewhere(policy) if elsewhere == "scorer" else Judge(policy)
    driver = driver_of(policy, judge)
    live = [driver.start(Beam(4, 2), problem) for problem in problems(4)]
    driver.tick(live)
    with pytest.raises(RuntimeError, match="no engine"):
        driver.tick(live)
    assert [search.state.rounds for search in live] == [1, 1, 0, 0]
    run_until_over(driver, live)
    wanted = run_searches(Beam(4, 2), problems(4), driver_of(Policy(), Judge(Policy()), overlap=False))
    assert [one.state for one in live] == [one.state for one in wanted]
    assert costs(live) == costs(wanted)


@pytest.mark.parametrize(
    ("name", "limits"), [("beam", Limits(policy_tokens=20)), ("adaptive_consistency", Limits())]
)
def test_limits_and_votes_of_a_half_hold_where_sampling_the_other_fails(name: str, limits: Limits) -> None:
    """Each of these searches is over after a round."""
    config = SearchConfig.model_validate({"adaptive_consistency": {"threshold": 0.5}})
    searcher = make_searcher(name, config, 8, "prod")
    policy = Policy(fails={2})
    driver = driver_of(policy, JudgeElsewhere(policy), limits)
    live = [driver.start(searcher, problem) for problem in problems(4)]
    run_until_over(driver, live, fails=1)
    wanted = run_searches(searcher, problems(4), driver_of(Policy(), Judge(Policy()), limits, False))
    assert [one.state for one in live] == [one.state for one in wanted]


@pytest.mark.parametrize("elsewhere", ["scorer", "policy"])
def test_what_was_sampled_is_not_sampled_again_where_scoring_fails(elsewhere: str) -> None:
    calls = []
    for fails in ((), (1, 4)):
        policy = PolicyElsewhere() if elsewhere == "policy" else Policy()
        judge = JudgeElsewhere(policy, fails) if elsewhere == "scorer" else Judge(policy, fails)
        driver = driver_of(policy, judge)
        live = [driver.start(Beam(4, 2), problem) for problem in problems(4)]
        run_until_over(driver, live, fails=len(fails))
        calls.append((sum(policy.calls), costs(live), [one.state for one in live]))
    assert calls[0] == calls[1]


def test_a_search_that_leaves_between_sampling_and_scoring_pays_nothing() -> None:
    policy = Policy()
    driver = driver_of(policy, JudgeElsewhere(policy))
    live = [driver.start(Beam(4, 2), problem) for problem in problems(4)]
    driver.tick(live)
    live[0].stop("cancelled")
    run_until_over(driver, live)
    assert live[0].ledger.policy_tokens == 0
    assert live[0].state.nodes[1:] == []
    assert ("begin scoring", [1]) in policy.events


def test_searches_that_join_later_are_the_same() -> None:
    policy = Policy()
    driver = driver_of(policy, JudgeElsewhere(policy))
    searches = [driver.start(Beam(4, 2), problem) for problem in problems(MANY)]
    for joined in range(1, MANY):
        driver.tick([search for search in searches[:joined] if not search.done])
    run_until_over(driver, [search for search in searches if not search.done])
    wanted = run_searches(Beam(4, 2), problems(MANY), driver_of(Policy(), Judge(Policy()), overlap=False))
    assert [one.state for one in searches] == [one.state for one in wanted]


@pytest.mark.parametrize("algorithm", ["best_of_n", "mcts"])
def test_results_over_an_endpoint_are_the_same(algorithm: Any) -> None:
    def search(overlap: bool) -> list[SearchResult]:
        with served(FakePolicy()) as url:
            asked = [f"What is {at}?" for at in range(5)]
            return airls_ray.search_endpoint(
                url, asked, Digits(), budget=4, algorithm=algorithm, overlap=overlap
            )

    together, halves = search(False), search(True)
    assert [one.candidates for one in halves] == [one.candidates for one in together]
    for one, other in zip(halves, together, strict=True):
        assert {**one.costs, "seconds": 0} == {**other.costs, "seconds": 0}


def test_an_answer_is_read_once_though_its_search_waits_a_tick() -> None:
    read: list[tuple[int, tuple[int, ...]]] = []

    def count(asked: Any, responses: Any) -> list[str]:
        read.extend((one.number, tuple(tokens)) for one, tokens in zip(asked, responses, strict=True))
        return [str(sum(tokens) % 3) for tokens in responses]

    policy = Policy()
    settings = DriverSettings(overlap=True)
    driver = SearchDriver(policy, JudgeElsewhere(policy), blank, settings, count)
    searcher = make_searcher("adaptive_consistency", SearchConfig(), 8, "prod")
    found = run_searches(searcher, problems(MANY), driver)
    assert len(read) == sum(len(search.state.finished()) for search in found)
