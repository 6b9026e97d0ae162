"""Which worker does what: shares of jobs, each delivered once or dropped. No Ray, and no clock of its own.

A share is a set of rows of a job (a row is a group of rollouts, or a prefix to continue). It waits, runs on
one worker, and is delivered; or its worker fails, and it waits again for another one. At any time

    submitted == delivered + dropped + running + waiting        (in rows)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from airls_ray.config.rollout_section import FailureConfig


@dataclass(frozen=True)
class Share:
    """Rows of a job that one worker does in one call."""

    job: Hashable
    rows: tuple[int, ...]
    failures: int = 0
    """Times that a worker failed with it."""
    worker: str | None = None
    """The worker that should do it (its cache holds the prefixes); None: whichever is free first."""
    not_before: float = 0.0
    """Time from which it may be tried again, in seconds of the caller's clock."""


class Dispatch:
    """The state of all shares of all jobs."""

    def __init__(self, failures: FailureConfig) -> None:
        """`failures`: how often and when a share is tried again."""
        self._policy = failures
        self.attempts = failures.attempts
        self._waiting: deque[Share] = deque()
        self._running: dict[str, Share] = {}
        self.submitted = 0
        self.delivered = 0
        self.requeued = 0
        """Rows that had to be done again."""
        self.dropped: list[tuple[Hashable, int]] = []
        """Job and row of what failed too often."""

    @property
    def waiting(self) -> int:
        """Rows that no worker has."""
        return sum(len(share.rows) for share in self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits, now or for the time at which it may be tried again."""
        return bool(self._waiting)

    @property
    def running(self) -> int:
        """Rows that workers have."""
        return sum(len(share.rows) for share in self._running.values())

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def submit(self, shares: Iterable[Share]) -> None:
        """Add shares, behind those that wait."""
        for share in shares:
            if share.rows:
                self._waiting.append(share)
                self.submitted += len(share.rows)

    def take(self, worker: str, now: float) -> Share | None:
        """Give a free worker the next share that it may do: its own first, or None.

        Raises:
            ValueError: the worker has one already.
        """
        if worker in self._running:
            raise ValueError(f"{worker} still has a share")
        place = next((at for at, one in enumerate(self._waiting) if one.worker == worker), None)
        if place is None:
            ready = (
                at for at, one in enumerate(self._waiting) if one.worker is None and one.not_before <= now
            )
            place = next(ready, None)
        if place is None:
            return None
        share = self._waiting[place]
        del self._waiting[place]
        self._running[worker] = share
        return share

    def deliver(self, worker: str) -> Share:
        """The worker's share is done."""
        share = self._running.pop(worker)
        self.delivered += len(share.rows)
        return share

    def fail(self, worker: str, now: float) -> Share | None:
        """The worker died, hung or failed: its share waits again, for any worker, or its rows are dropped.

        Returns the share that it had, if it had one. Shares that waited for this worker wait for any.
        """
        self.free(worker)
        share = self._running.pop(worker, None)
        if share is None:
            return None
        failures = share.failures + 1
        if failures >= self._policy.attempts:
            self.dropped += [(share.job, row) for row in share.rows]
            return share
        wait = self._policy.backoff_seconds * 2.0 ** (failures - 1)
        again = replace(share, failures=failures, worker=None, not_before=now + wait)
        # A group that kills its worker must not take others with it for ever.
        parts = [share.rows] if failures == 1 else [(row,) for row in share.rows]
        self._waiting.extendleft(replace(again, rows=rows) for rows in reversed(parts))
        self.requeued += len(share.rows)
        return share

    def refuse(self, worker: str) -> None:
        """The worker's share cannot be done by anybody: it counts as if it had never been submitted."""
        share = self._running.pop(worker, None)
        if share is not None:
            self.submitted -= len(share.rows)

    def free(self, worker: str) -> None:
        """What waits for this worker may be done by any (it leaves)."""
        self._waiting = deque(
            replace(share, worker=None) if share.worker == worker else share for share in self._waiting
        )

    def free_all_but(self, workers: Collection[str]) -> None:
        """What waits for a worker that is none of these may be done by any (it has left)."""
        for gone in {share.worker for share in self._waiting if share.worker is not None}.difference(workers):
            self.free(gone)

    def forget(self, job: Hashable) -> None:
        """Give up what waits of a job, as if it had never been submitted; what runs is not touched."""
        gone = [share for share in self._waiting if share.job == job]
        self._waiting = deque(share for share in self._waiting if share.job != job)
        self.submitted -= sum(len(share.rows) for share in gone)

    def next_try(self) -> float | None:
        """Earliest time at which something that waits may be tried; None if nothing waits."""
        return min((share.not_before for share in self._waiting), default=None)


def cut(job: Hashable, rows: Sequence[int], parts: int) -> list[Share]:
    """Cut rows into at most `parts` shares of neighbours whose sizes differ by at most one."""
    parts = min(parts, len(rows))
    if not parts:
        return []
    bounds = [len(rows) * part // parts for part in range(parts + 1)]
    return [Share(job, tuple(rows[low:high])) for low, high in pairwise(bounds)]


def by_owner(job: Hashable, owners: Sequence[int], workers: Sequence[str]) -> list[Share]:
    """Shares of the rows by the worker that their owner (a problem) always has: owner modulo workers."""
    count = len(workers)
    shares = [
        Share(job, tuple(row for row, owner in enumerate(owners) if owner % count == number), worker=worker)
        for number, worker in enumerate(workers)
    ]
    return [share for share in shares if share.rows]
