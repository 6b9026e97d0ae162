"""A search of one problem while it runs, and what all searches of a driver share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from airls_ray.search.ledger import Ledger, Limits
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import SearchState
from airls_ray.truncation import WHOLE, Truncation


@dataclass(frozen=True)
class SearchProblem:
    """A problem as the search sees it."""

    number: int
    problem_id: str
    prompt: tuple[int, ...]
    seed: int
    text: str = ""
    """For who reads answers and does not know the number."""


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
    ledger: Ledger = field(default_factory=Ledger)
    stopped_by: str | None = None
    """Axis of the ledger whose limit ended it."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.searcher.done(self.state)

    def stop(self, reason: str) -> None:
        """End it here, with what it has."""
        self.stopped_by = reason
        self.searcher.stop(self.state)


@dataclass
class Seconds:
    """Where the time of a driver went."""

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
