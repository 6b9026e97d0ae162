"""Searches of many clients, live together: a thread that ticks over whatever is there.

    submit -> waiting -> (a place is free) live -> tick, tick, ... -> over -> the future's result

Searches join and leave between two ticks. A future that is cancelled takes its search out.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from airls_ray.errors import DataError, RequestRefused
from airls_ray.search.live import Search

_IDLE_SECONDS = 1.0
"""Between two looks after the workers while nothing is searched."""
REFUSALS = (RequestRefused, DataError)
"""What a request can bring on itself: the engine or the scorer does not take what it asks for."""

_LOG = logging.getLogger(__name__)


class Ticks(Protocol):
    """The part of `SearchDriver` that is needed here."""

    def tick(self, live: Sequence[Search]) -> list[Search]:
        """Run one round of every live search; returns those that are over now."""
        ...


class QueueFullError(Exception):
    """No place is free, and none to wait."""


@dataclass(eq=False)
class _Entry:
    begin: Callable[[], Search]
    future: Future[Search] = field(default_factory=Future)
    search: Search | None = None


class SearchQueue:
    """At most `max_live` searches at once, and at most `max_queue` that wait."""

    def __init__(
        self, driver: Ticks, max_live: int, max_queue: int, mend: Callable[[], bool] | None = None
    ) -> None:
        """Run nothing yet: call `start` (or `turn` by hand).

        Args:
            driver: runs the rounds.
            max_live: most searches at once.
            max_queue: most that wait.
            mend: looks after the workers while nothing is searched, and says whether any is ready.
        """
        self._driver = driver
        self._mend = mend
        self._max_live = max_live
        self._max_queue = max_queue
        self._waiting: deque[_Entry] = deque()
        self._live: list[_Entry] = []
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self.left: Callable[[Search], None] = lambda search: None
        """Called with each search that leaves: over, failed or cancelled."""

    @property
    def failing(self) -> bool:
        """Whether the last tick failed, and nothing was mended since."""
        return self._failing

    @property
    def most(self) -> int:
        """Most searches that are live or waiting."""
        return self._max_live + self._max_queue

    def counts(self) -> tuple[int, int]:
        """Searches that are live, and that wait."""
        with self._changed:
            return len(self._live), sum(not entry.future.cancelled() for entry in self._waiting)

    def submit(self, begin: Callable[[], Search]) -> Future[Search]:
        """Wait for a place, then search; cancel the future to end it.

        Args:
            begin: starts the search; it is called when its turn comes.

        Returns:
            The search that is over, or the exception of the tick that failed.

        Raises:
            QueueFullError: `most` searches are there.
            RuntimeError: the queue is closed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the search queue is closed")
            self._drop_cancelled()
            if len(self._live) + len(self._waiting) >= self.most:
                raise QueueFullError
            entry = _Entry(begin)
            self._waiting.append(entry)
            self._changed.notify()
        return entry.future

    def start(self) -> None:
        """Tick in a thread of its own until `close`."""
        threading.Thread(target=self._run, name="search-queue", daemon=True).start()

    def close(self) -> None:
        """Take no more, end after the tick under way; whoever waits gets a RuntimeError."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def turn(self) -> bool:
        """Let searches leave and join, run one tick; returns whether there was anything to do."""
        with self._changed:
            self._drop_cancelled()
            for entry in [entry for entry in self._live if entry.future.cancelled()]:
                self._live.remove(entry)
                if entry.search is not None:
                    entry.search.stop("cancelled")
                    self.left(entry.search)
            while self._waiting and len(self._live) < self._max_live:
                self._live.append(self._waiting.popleft())
            entries = list(self._live)
        if entries:
            self._tick(entries)
        return bool(entries)

    def _run(self) -> None:
        while True:
            with self._changed:
                wait = None if self._mend is None else _IDLE_SECONDS
                self._changed.wait_for(lambda: self._closing or self._waiting or self._live, wait)
                if self._closing:
                    break
            if not self.turn():
                self.rest()
        with self._changed:
            for entry in [*self._live, *self._waiting]:
                with suppress(InvalidStateError):
                    entry.future.set_exception(RuntimeError("the search queue is closed"))
            self._live.clear()
            self._waiting.clear()

    def rest(self) -> None:
        """Nothing is searched: look after the workers, so that a dead one is replaced before it is missed."""
        if self._mend is None:
            return
        try:
            ready = self._mend()
        except Exception:  # the thread must live, and try again
            _LOG.exception("the workers could not be looked after")
            return
        self._failing = self._failing and not ready

    def _tick(self, entries: Sequence[_Entry]) -> bool:
        """Run a round; returns whether any search of it is well."""
        try:
            self._round(entries)
        except Exception as error:  # whatever it is, the clients must be told, and the thread must live
            if len(entries) == 1:
                self._fail(entries[0], error)
                return False
            # One of them may be to blame. Who was told nothing asks again, with the same seeds.
            _LOG.warning("a round of %d searches failed and is done one by one: %s", len(entries), error)
            well = [self._tick([entry]) for entry in entries if not entry.future.cancelled()]
            self._failing = self._failing and not any(well)
            return any(well)
        return True

    def _fail(self, entry: _Entry, error: Exception) -> None:
        if isinstance(error, REFUSALS):
            _LOG.warning("a search was refused: %s", error)
        else:
            _LOG.error("a search failed", exc_info=error)
            self._failing = True
        self._leave([entry])
        with suppress(InvalidStateError):
            entry.future.set_exception(error)

    def _round(self, entries: Sequence[_Entry]) -> None:
        searches = [self._search(entry) for entry in entries]
        over = {id(search) for search in self._driver.tick(searches)}
        self._failing = False
        done = [entry for entry in entries if id(entry.search) in over]
        self._leave(done)
        for entry in done:
            with suppress(InvalidStateError):  # cancelled while it was finished
                entry.future.set_result(self._search(entry))

    def _search(self, entry: _Entry) -> Search:
        if entry.search is None:
            entry.search = entry.begin()
        return entry.search

    def _leave(self, entries: Sequence[_Entry]) -> None:
        gone = {id(entry) for entry in entries}
        with self._changed:
            self._live = [entry for entry in self._live if id(entry) not in gone]
        for entry in entries:
            if entry.search is not None:
                self.left(entry.search)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(entry for entry in self._waiting if not entry.future.cancelled())
