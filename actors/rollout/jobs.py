"""What the rollout pool is asked for, and what has come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Job:
    """Rows that are asked for together."""

    number: int
    rows: int
    submit: Callable[[Any, Sequence[int]], Any]
    """Calls a worker's handle with some rows; returns the reference."""
    done: dict[tuple[int, ...], Any] = field(default_factory=dict)
    """Reference by the rows behind it."""
    dropped: list[int] = field(default_factory=list)
    """Rows that failed too often."""
    reason: str = ""
    """Why the last one failed."""

    @property
    def finished(self) -> bool:
        """Whether every row is delivered or dropped."""
        return sum(map(len, self.done)) + len(self.dropped) == self.rows

    def in_order(self) -> list[tuple[list[int], Any]]:
        """Rows and reference of every share, by the first row."""
        return [(list(rows), ref) for rows, ref in sorted(self.done.items(), key=lambda one: one[0])]


def times_before(names: Sequence[str], asked: Sequence[int]) -> dict[int, int]:
    """How often the problem of each row that is asked for stands in other rows, or in those asked before."""
    wanted = set(asked)
    seen = Counter(name for row, name in enumerate(names) if row not in wanted)
    times = {}
    for row in asked:
        times[row] = seen[names[row]]
        seen[names[row]] += 1
    return times
