"""A search of one problem while it runs, and what all searches of a driver share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from airls_ray.search.ledger import Ledger, Limits
from airls_ray.search.scoring import Continuation
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Expansion, SearchState
from airls_ray.truncation import WHOLE, Truncation


@dataclass(frozen=True)
class SearchProblem:
    """A problem as the search sees it."""

    number: int
    problem_id: str
    prompt: tuple[int, ...]
    seed: int
    text: str = ""
    """As its author wrote it: for who reads answers or steps and does not know the number."""


Read = Callable[[Sequence[SearchProblem], Sequence[Sequence[int]]], Sequence[str | None]]
"""Problems and responses (tokens) to the answers that a grader reads there; it knows no right one."""


@dataclass(frozen=True)
class DriverSettings:
    """What all algorithms share."""

    temperature: float = 1.0
    max_steps: int = 40
    limits: Limits = field(default_factory=Limits)
    policy_parameters: int = 0
    """For the ledger's floating-point operations."""
    scorer_parameters: int = 0
    truncation: Truncation = WHOLE
    overlap: bool = False
    """Whether one half of the live searches is sampled while the other is scored, where either is done
    elsewhere."""


@dataclass
class Search:
    """The search of one problem, under way or over. Searches by different algorithms may be live together."""

    problem: SearchProblem
    searcher: Searcher
    state: SearchState
    limits: Limits = field(default_factory=Limits)
    temperature: float = 1.0
    truncation: Truncation = WHOLE
    end_of: Callable[[Sequence[int]], int | None] | None = None
    """Where a response ends before its end of sequence: tokens of a response to how many of them stay, or
    None where it goes on."""
    without_end: Callable[[Sequence[int]], Sequence[int]] | None = None
    """A response to what who asked is given of it, where `end_of` has ended it; None: all of it."""
    ledger: Ledger = field(default_factory=Ledger)
    stopped_by: str | None = None
    """Axis of the ledger whose limit ended it."""
    started: float = field(default_factory=time.perf_counter)
    sampled: Sequence[Sampled] = field(default=(), repr=False, compare=False)
    """What was sampled of the round under way, while it is not scored yet."""

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.searcher.done(self.state)

    def given(self, node: int) -> Sequence[int]:
        """Return the tokens of a finished response in which its answer is read."""
        response = self.state.response(node)
        return response if self.without_end is None else self.without_end(response)

    def stop(self, reason: str) -> None:
        """End it here, with what it has."""
        self.stopped_by = reason
        self.searcher.stop(self.state)


@dataclass(frozen=True)
class Ask:
    """A node to continue, with what all of its continuations share (walked up the tree once)."""

    search: Search
    expansion: Expansion
    response: tuple[int, ...]
    """Tokens of the node's prefix behind the prompt."""

    @classmethod
    def of(cls, search: Search, expansion: Expansion) -> Ask:
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


@dataclass(frozen=True)
class Sampled:
    """The continuations of one ask, sampled and not scored yet."""

    ask: Ask
    rows: Sequence[dict[str, Any]]
    """Of schema CONTINUATIONS."""
    items: Sequence[Continuation]
    """What the scorer is asked about each."""


@dataclass
class Seconds:
    """Where the time of a driver went.

    Of sampling and scoring side by side one counts whole, and the other as far as it took longer: so they add
    up to the time that the driver waited.
    """

    generate: float = 0.0
    score: float = 0.0
    total: float = 0.0

    @property
    def driver(self) -> float:
        """Seconds of the driver itself."""
        return self.total - self.generate - self.score

    def add(self, other: Seconds) -> None:
        """Add those of another batch."""
        self.generate += other.generate
        self.score += other.score
        self.total += other.total
