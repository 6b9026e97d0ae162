"""The search of many problems at once: the wishes of all live ones become one batch to sample, one to score.

    ask all -> generator.expand (one table) -> scorer.score (one batch) -> tell all

With `overlap` a tick does both, for one half of the live searches each, side by side:

    ask these  -> generator.expand         the next tick scores them
    those, which the last tick sampled  -> scorer.score -> tell them

Knows neither Ray nor models: generator and scorer are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

import pyarrow as pa

from airls_ray.search.asks import child_of, expansions_of, pay, sampled
from airls_ray.search.ledger import unique_tokens
from airls_ray.search.live import Ask, DriverSettings, Read, Sampled, Search, SearchProblem, Seconds
from airls_ray.search.scoring import Continuation, Scores, ScoresElsewhere, StepScorer
from airls_ray.search.searcher import Searcher


class Generator(Protocol):
    """Whatever samples."""

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        """Answer EXPANSIONS by CONTINUATIONS in their order; `owners`: number of each row's problem."""
        ...


@runtime_checkable
class SamplesElsewhere(Protocol):
    """A generator that samples while its caller does something else."""

    def begin(self, expansions: pa.Table, owners: Sequence[int]) -> Callable[[], pa.Table]:
        """Begin what `expand` does, and return what waits for its answer. One at a time."""
        ...


class SearchDriver:
    """Runs ticks over whatever searches are live; they may join and leave between any two."""

    def __init__(
        self,
        generator: Generator,
        scorer: StepScorer,
        is_blank: Callable[[Sequence[int]], bool],
        settings: DriverSettings,
        read: Read | None = None,
    ) -> None:
        """`is_blank`: whether tokens have no text (such as an end of sequence alone); `read`: asked only by
        searches that read answers."""
        self._generator = generator
        self._scorer = scorer
        self._is_blank = is_blank
        self._settings = settings
        self._read = read
        self.seconds = Seconds()

    def start(self, searcher: Searcher, problem: SearchProblem) -> Search:
        """A search of this driver's temperature, truncation and limits."""
        settings = self._settings
        state = searcher.start(problem.seed, self._scorer.kind)
        return Search(problem, searcher, state, settings.limits, settings.temperature, settings.truncation)

    def tick(self, live: Sequence[Search]) -> list[Search]:
        """Run one round of every live search; returns those that are over now.

        Where halves overlap, a search is sampled in one tick and scored in the next. What was sampled stays
        with it until it is told: an error loses nothing of it, and another tick goes on from there. That also
        holds for the answers of a round and for limits: no round is planned without them.
        """
        started = time.perf_counter()
        for search in live:
            if search.done:  # it was stopped between two ticks
                search.sampled = ()
        # An error may have come between the end of a round and this.
        self._end_rounds([search for search in live if not (search.sampled or search.state.pending)])
        asking = [search for search in live if not search.sampled]
        if self._overlaps and len(live) > 1:
            half = (len(live) + 1) // 2
            scoring = [search for search in live if search.sampled]
            self._side_by_side(_asks(asking[:half]), scoring)
        else:
            self._sample(_asks(asking))
            self._score([search for search in live if search.sampled])
        told = [search for search in live if not search.sampled]
        self._end_rounds(told)
        over = []
        for search in told:
            search.searcher.ask(search.state)  # plans the next round, or finds that there is none
            if search.done:
                search.ledger.kv_tokens = unique_tokens(search.problem.prompt, search.state)
                over.append(search)
        self.seconds.total += time.perf_counter() - started
        return over

    @property
    def _overlaps(self) -> bool:
        elsewhere = isinstance(self._scorer, ScoresElsewhere) or isinstance(self._generator, SamplesElsewhere)
        return self._settings.overlap and elsewhere

    def _side_by_side(self, asks: Sequence[Ask], scoring: Sequence[Search]) -> None:
        """Sample for some searches while what was sampled for others is scored; an error in one does not stop
        the other."""
        if not asks or not scoring:
            self._sample(asks)
            self._score(scoring)
        elif isinstance(self._scorer, ScoresElsewhere):
            scores = self._scorer.begin(_items(scoring))
            _then(lambda: self._sample(asks), lambda: self._score(scoring, scores))
        else:
            assert isinstance(self._generator, SamplesElsewhere)
            found = self._generator.begin(expansions_of(asks), _owners(asks))
            _then(lambda: self._score(scoring), lambda: self._sample(asks, found))

    def _sample(self, asks: Sequence[Ask], begun: Callable[[], pa.Table] | None = None) -> None:
        """Sample what is asked for, or wait for what was begun of it; it stays with its searches."""
        if not asks:
            return
        before = time.perf_counter()
        found = self._generator.expand(expansions_of(asks), _owners(asks)) if begun is None else begun()
        self.seconds.generate += time.perf_counter() - before
        by_search: dict[int, list[Sampled]] = {}
        for one in sampled(asks, found, self._is_blank):
            by_search.setdefault(id(one.ask.search), []).append(one)
        for own in by_search.values():
            own[0].ask.search.sampled = own

    def _score(self, searches: Sequence[Search], begun: Callable[[], Scores] | None = None) -> None:
        """Score what was sampled for the searches, or wait for what was begun of it, and tell them."""
        items = _items(searches)
        if not items:
            return
        before = time.perf_counter()
        scores, costs = self._scorer.score(items) if begun is None else begun()
        self.seconds.score += time.perf_counter() - before
        found = iter(list(zip(items, scores, costs, strict=True)))
        for search in searches:
            self._tell(search, found)
            search.sampled = ()

    def _tell(self, search: Search, found: Iterator[tuple[Continuation, tuple[float, ...], int]]) -> None:
        """Tell a search of its continuations, which are next in `found` with their scores and costs."""
        ledger, state, settings = search.ledger, search.state, self._settings
        for one in search.sampled:
            children = []
            for row, (item, scores, cost) in zip(one.rows, islice(found, len(one.rows)), strict=True):
                children.append(child_of(row, item, scores, settings.max_steps))
                pay(ledger, row, item, cost, settings)
            ledger.prefill_tokens += len(one.ask.prefix)
            if not state.rounds:
                ledger.flops += 2.0 * settings.policy_parameters * len(one.ask.prefix)
            search.searcher.tell(state, one.ask.expansion.ticket, children)

    def _end_rounds(self, searches: Sequence[Search]) -> None:
        """Do what comes between the answers of a round and the plan of the next, which may rest on it."""
        self._read_answers([search for search in searches if search.searcher.reads_answers])
        for search in searches:
            search.ledger.seconds = time.perf_counter() - search.started
            _check_limits(search)

    def _read_answers(self, searches: Sequence[Search]) -> None:
        """Read what the newly finished responses of some searches answer, all at once."""
        found = [
            (search, node)
            for search in searches
            for node in search.state.last
            if search.state.nodes[node].finished and node not in search.state.answers
        ]
        if not found:
            return
        if self._read is None:
            raise ValueError("a search reads answers, and its driver was given nothing that reads them")
        answers = self._read(
            [search.problem for search, _ in found],
            [search.given(node) for search, node in found],
        )
        for (search, node), answer in zip(found, answers, strict=True):
            search.state.answers[node] = answer


def run_searches(searcher: Searcher, problems: Sequence[SearchProblem], driver: SearchDriver) -> list[Search]:
    """Search all problems together by one algorithm until each is over; returns them in order."""
    searches = [driver.start(searcher, problem) for problem in problems]
    live = list(searches)
    while live:
        over = {id(search) for search in driver.tick(live)}
        live = [search for search in live if id(search) not in over]
    return searches


def _asks(searches: Sequence[Search]) -> list[Ask]:
    return [
        Ask.of(search, expansion) for search in searches for expansion in search.searcher.ask(search.state)
    ]


def _owners(asks: Sequence[Ask]) -> list[int]:
    return [ask.search.problem.number for ask in asks]


def _items(searches: Sequence[Search]) -> list[Continuation]:
    return [item for search in searches for one in search.sampled for item in one.items]


def _then(here: Callable[[], None], elsewhere: Callable[[], None]) -> None:
    """Do what is done here, then wait for what was begun elsewhere, also where the first fails."""
    try:
        here()
    finally:
        elsewhere()


def _check_limits(search: Search) -> None:
    if search.done or not search.state.rounds:
        return
    if search.limits.kv_tokens is not None:
        search.ledger.kv_tokens = unique_tokens(search.problem.prompt, search.state)
    axis = search.limits.reached(search.ledger)
    if axis is not None:
        search.stop(axis)
