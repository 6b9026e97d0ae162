"""Progress of the long parts: bars on a terminal, plain lines in a log, nothing in tests.

`make_progress` is the one place that chooses. Progress goes to standard error, tables (results) to
standard output.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO

from airls_ray.console.formatting import Cell, format_fields, format_seconds, phase_line, print_table

_PLAIN_WIDTH = 160  # a log has no width; rich would assume 80 columns and cut
_LINE_SECONDS = 10.0
_DECILE_SECONDS = 1.0


class Track(Protocol):
    """A counted task that is under way."""

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count `n` more done; `fields` (such as outcome=0.51) are shown until they are given anew."""
        ...


class Progress(Protocol):
    """Where the parts of a run report what they are at."""

    def say(self, text: str) -> None:
        """Print one line."""
        ...

    def track(self, description: str, total: int | None, done: int = 0) -> AbstractContextManager[Track]:
        """Show a task of `total` units (None: unknown), of which `done` were there before (a resume)."""
        ...

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Print `name` and its seconds when the block is over; phases may overlap, in any threads."""
        ...

    def phase_done(self, name: str, seconds: float) -> None:
        """Print the line of a phase that the caller timed."""
        ...

    def table(
        self, title: str, rows: Sequence[Mapping[str, Cell] | Sequence[Cell]], columns: Sequence[str] = ()
    ) -> None:
        """Print a table. Columns are the keys of the first row, unless rows are sequences."""
        ...


class QuietProgress:
    """Prints nothing: the default of library functions and tests."""

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def track(self, description: str, total: int | None, done: int = 0) -> Iterator[Track]:
        """Yield a counter that shows nothing."""
        yield _QuietTrack()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Print nothing."""
        yield

    def phase_done(self, name: str, seconds: float) -> None:
        """Print nothing."""

    def table(
        self, title: str, rows: Sequence[Mapping[str, Cell] | Sequence[Cell]], columns: Sequence[str] = ()
    ) -> None:
        """Print nothing."""


class _QuietTrack:
    def advance(self, n: int = 1, **fields: Any) -> None:
        pass


class PlainProgress:
    """Log lines: for a job log or a file."""

    def __init__(
        self,
        log: TextIO | None = None,
        results: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write progress to `log` (standard error) and tables to `results` (standard output)."""
        self._log, self._results, self._clock = log, results, clock
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            print(text, file=self._log or sys.stderr, flush=True)

    @contextmanager
    def track(self, description: str, total: int | None, done: int = 0) -> Iterator[Track]:
        """Print a line each 10 % or each few seconds, whichever comes first, and one at the end."""
        track = _PlainTrack(self.say, self._clock, description, total, done)
        try:
            yield track
        finally:
            track.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Print `name` and its seconds when the block is over."""
        with timed(self, name, self._clock):
            yield

    def phase_done(self, name: str, seconds: float) -> None:
        """Print the line of a phase that the caller timed."""
        self.say(phase_line(name, seconds))

    def table(
        self, title: str, rows: Sequence[Mapping[str, Cell] | Sequence[Cell]], columns: Sequence[str] = ()
    ) -> None:
        """Print a table without colours."""
        from rich.console import Console

        console = Console(file=self._results or sys.stdout, width=_PLAIN_WIDTH, color_system=None)
        with self._lock:
            print_table(console, title, rows, columns)


class _PlainTrack:
    """Decides when a line is due: the first advance, then each 10 % (never twice a second) or each 10 s."""

    def __init__(
        self,
        say: Callable[[str], None],
        clock: Callable[[], float],
        description: str,
        total: int | None,
        done: int,
    ) -> None:
        self._say, self._clock = say, clock
        self._description, self._total = description, total
        self._before = self._done = self._said = done
        self._fields: dict[str, Any] = {}
        self._start = clock()
        self._said_at = float("-inf")
        self._lock = threading.Lock()

    def advance(self, n: int = 1, **fields: Any) -> None:
        with self._lock:
            self._done += n
            self._fields |= fields
            if self._due():
                self._print()

    def close(self) -> None:
        if self._done != self._said:
            self._print()

    def _due(self) -> bool:
        waited = self._clock() - self._said_at
        if waited >= _LINE_SECONDS or self._done == self._total:
            return True
        if not self._total:
            return False
        crossed = 10 * self._done // self._total > 10 * self._said // self._total
        return crossed and waited >= _DECILE_SECONDS

    def _print(self) -> None:
        elapsed = self._clock() - self._start
        counted = (
            f"{self._done}/{self._total} ({self._done / self._total:.0%})" if self._total else str(self._done)
        )
        times = f"{format_seconds(elapsed)} elapsed"
        made = self._done - self._before
        if self._total and made > 0 and self._done < self._total:
            times += f", {format_seconds(elapsed / made * (self._total - self._done))} left"
        self._said, self._said_at = self._done, self._clock()
        self._say(
            "  ".join(
                part for part in (self._description, counted, format_fields(self._fields), times) if part
            )
        )


@contextmanager
def timed(progress: Progress, name: str, clock: Callable[[], float]) -> Iterator[None]:
    """Report a phase to `progress` when the block is over, also when it failed."""
    start = clock()
    try:
        yield
    except BaseException:
        progress.phase_done(f"{name}: failed", clock() - start)
        raise
    progress.phase_done(name, clock() - start)
