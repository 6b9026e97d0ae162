"""The search of many problems at once: the wishes of all live ones become one batch to sample, one to score.

    ask all -> generator.expand (one table) -> scorer.score (one batch) -> tell all

Knows neither Ray nor models: generator and scorer are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum
from typing import Any, Protocol

import pyarrow as pa

from airls_ray.data.schemas import EXPANSIONS
from airls_ray.search.ledger import Ledger, unique_tokens
from airls_ray.search.live import DriverSettings, Read, Search, SearchProblem, Seconds
from airls_ray.search.scoring import Continuation, StepScorer
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Expansion, Finish


class Generator(Protocol):
    """Whatever samples."""

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        """Answer EXPANSIONS by CONTINUATIONS in their order; `owners`: number of each row's problem."""
        ...


@dataclass(frozen=True)
class _Ask:
    """A node to continue, with what all of its continuations share (walked up the tree once)."""

    search: Search
    expansion: Expansion
    response: tuple[int, ...]
    """Tokens of the node's prefix behind the prompt."""

    @classmethod
    def of(cls, search: Search, expansion: Expansion) -> _Ask:
        """Walk up the tree."""
        return cls(search, expansion, tuple(search.state.response(expansion.want.node)))

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """Prompt and response."""
        return (*self.search.problem.prompt, *self.response)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ends of the response's steps."""
        return tuple(self.search.state.step_ends(self.expansion.want.node))


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
        """Run one round of every live search; returns those that are over now."""
        started = time.perf_counter()
        asks = [
            _Ask.of(search, expansion) for search in live for expansion in search.searcher.ask(search.state)
        ]
        if asks:
            self._answer(asks)
            self._read_answers([search for search in live if search.searcher.reads_answers])
        over = []
        for search in live:
            search.ledger.seconds = time.perf_counter() - search.started
            _check_limits(search)
            search.searcher.ask(search.state)  # plans the next round, or finds that there is none
            if search.done:
                search.ledger.kv_tokens = unique_tokens(search.problem.prompt, search.state)
                over.append(search)
        self.seconds.total += time.perf_counter() - started
        return over

    def _answer(self, asks: Sequence[_Ask]) -> None:
        """Sample and score what is asked, and tell it."""
        before = time.perf_counter()
        found = self._generator.expand(_expansions(asks), [ask.search.problem.number for ask in asks])
        self.seconds.generate += time.perf_counter() - before
        rows = [_ended(asks[row["expansion"]], row) for row in found.to_pylist()]
        items = [_item(asks[row["expansion"]], row, self._is_blank) for row in rows]
        before = time.perf_counter()
        scores, costs = self._scorer.score(items)
        self.seconds.score += time.perf_counter() - before
        children: list[list[Child]] = [[] for _ in asks]
        for row, item, one, cost in zip(rows, items, scores, costs, strict=True):
            ask = asks[row["expansion"]]
            children[row["expansion"]].append(_child(row, item, one, self._settings.max_steps))
            _pay(ask.search.ledger, row, cost, self._settings)
        for ask, answer in zip(asks, children, strict=True):
            state = ask.search.state
            ask.search.ledger.prefill_tokens += len(ask.prefix)
            if not state.rounds:
                ask.search.ledger.flops += 2.0 * self._settings.policy_parameters * len(ask.prefix)
            ask.search.searcher.tell(state, ask.expansion.ticket, answer)

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
            [search.state.response(node) for search, node in found],
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


def _check_limits(search: Search) -> None:
    if search.done or not search.state.rounds:
        return
    if search.limits.kv_tokens is not None:
        search.ledger.kv_tokens = unique_tokens(search.problem.prompt, search.state)
    axis = search.limits.reached(search.ledger)
    if axis is not None:
        search.stop(axis)


def _expansions(asks: Sequence[_Ask]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in EXPANSIONS.names}
    for ask in asks:
        want, problem = ask.expansion.want, ask.search.problem
        temperature = ask.search.temperature if want.temperature is None else want.temperature
        values = (
            problem.problem_id,
            problem.prompt,
            ask.response,
            want.count,
            want.whole,
            want.max_tokens,
            want.lookahead,
            temperature,
            ask.expansion.seed,
            ask.search.truncation.top_p,
            ask.search.truncation.top_k,
            ask.search.truncation.min_p,
        )
        for name, value in zip(EXPANSIONS.names, values, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=EXPANSIONS)


def _ended(ask: _Ask, row: dict[str, Any]) -> dict[str, Any]:
    """A continuation without what is behind the end that its search sets; all that was sampled is paid."""
    end_of, before = ask.search.end_of, len(ask.response)
    end = None if end_of is None else end_of((*ask.response, *row["tokens"]))
    if end is None:
        return row
    kept = max(end - before, 1)
    ends = [*(one for one in row["step_ends"] if one < kept), kept]
    cut = {"tokens": row["tokens"][:kept], "logprobs": row["logprobs"][:kept], "step_ends": ends}
    return {**row, **cut, "finish": "stop", "ahead": [], "ahead_ends": []}


def _item(ask: _Ask, row: dict[str, Any], is_blank: Callable[[Sequence[int]], bool]) -> Continuation:
    """What the scorer is asked about a continuation."""
    state, node = ask.search.state, ask.expansion.want.node
    tokens = row["tokens"]
    closes = bool(node) and state.nodes[node].finish == "step" and is_blank(tokens)
    goes_on = closes or state.nodes[node].finish == "partial"
    open_tokens, open_log_prob = state.last_step(node) if goes_on else (0, 0.0)
    ends = [len(tokens)] if closes else row["step_ends"]
    bounds = pairwise([0, *ends])
    ahead = [len(tokens) + end for end in row["ahead_ends"]]
    return Continuation(
        prefix=ask.prefix,
        tokens=(*tokens, *row["ahead"]),
        step_ends=(*ends, *ahead),
        log_probs=(*(fsum(row["logprobs"][start:end]) for start, end in bounds), *[0.0] * len(ahead)),
        open_tokens=open_tokens,
        open_log_prob=open_log_prob,
        keep=len(tokens) if row["finish"] in ("step", "partial") else 0,
        problem=ask.search.problem.number,
        prompt_tokens=len(ask.search.problem.prompt),
        prefix_ends=ask.ends[:-1] if goes_on else ask.ends,
        over=row["finish"] in ("stop", "length"),
        closes=closes,
    )


def _child(row: dict[str, Any], item: Continuation, scores: tuple[float, ...], max_steps: int) -> Child:
    """The continuation as the searcher is told of it."""
    if len(scores) != len(item.step_ends):
        raise ValueError(f"a scorer gave {len(scores)} scores for {len(item.step_ends)} steps")
    finish: Finish = row["finish"]
    steps = len(item.step_ends) - len(row["ahead_ends"])
    if finish == "step" and len(item.prefix_ends) + steps >= max_steps:
        finish = "length"
    return Child(
        tokens=tuple(row["tokens"]),
        log_prob=fsum(item.log_probs[:steps]),
        scores=scores[:steps],
        finish=finish,
        closes=item.closes,
        step_ends=item.step_ends[:steps],
        step_log_probs=item.log_probs[:steps],
        ahead=scores[steps:],
        ahead_tokens=item.step_tokens[steps:] if row["ahead"] else (),
    )


def _pay(ledger: Ledger, row: dict[str, Any], cost: int, settings: DriverSettings) -> None:
    """Book one continuation."""
    ledger.generations += 1 + len(row["ahead_ends"])
    ledger.policy_tokens += row["sampled"]
    ledger.prm_tokens += cost
    ledger.flops += 2.0 * (settings.policy_parameters * row["sampled"] + settings.scorer_parameters * cost)
