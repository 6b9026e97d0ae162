"""Progress on a terminal: live bars and spinners (rich)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.text import Text

from airls_ray.console.formatting import Cell, format_count, format_fields, phase_line, print_table
from airls_ray.console.progress import Track, timed


class TerminalProgress:
    """Live bars and spinners; finished phases stay as lines above them."""

    def __init__(self, console: Console | None = None, results: Console | None = None) -> None:
        """Draw on `console` (standard error) and print tables on `results` (standard output)."""
        self._console = console or Console(stderr=True)
        self._results = results or Console()
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counted]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[shown]}", style="cyan", markup=False),
            console=self._console,
            transient=True,
        )
        self._running = 0
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(Text(text))

    @contextmanager
    def track(self, description: str, total: int | None, done: int = 0) -> Iterator[Track]:
        """Show a bar; it disappears at the end and leaves one line."""
        start = time.monotonic()
        with self._task(description, total, done) as task:
            track = _TerminalTrack(self._bars, task, total, done)
            yield track
        self.say(f"{phase_line(description, time.monotonic() - start)}  {track.shown()}".rstrip())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Show a spinner, and `name` with its seconds when the block is over."""
        with timed(self, name, time.monotonic), self._task(name, None, 0):
            yield

    def phase_done(self, name: str, seconds: float) -> None:
        """Print the line of a phase that the caller timed."""
        self.say(phase_line(name, seconds))

    def table(
        self, title: str, rows: Sequence[Mapping[str, Cell] | Sequence[Cell]], columns: Sequence[str] = ()
    ) -> None:
        """Print a table; bars that are drawn make room for it."""
        with self._lock:
            if self._running:
                self._bars.stop()
            print_table(self._results, title, rows, columns)
            if self._running:
                self._bars.start()

    @contextmanager
    def _task(self, description: str, total: int | None, done: int) -> Iterator[TaskID]:
        """A task in the live display, which is drawn only while there is one."""
        with self._lock:
            task = self._bars.add_task(
                description, total=total, completed=done, counted=format_count(done, total), shown=""
            )
            self._running += 1
            if self._running == 1:
                self._bars.start()
        try:
            yield task
        finally:
            with self._lock:
                self._bars.remove_task(task)
                self._running -= 1
                if self._running == 0:
                    self._bars.stop()


class _TerminalTrack:
    def __init__(self, bars: RichBars, task: TaskID, total: int | None, done: int) -> None:
        self._bars, self._task, self._total, self._done = bars, task, total, done
        self._fields: dict[str, Any] = {}

    def advance(self, n: int = 1, **fields: Any) -> None:
        self._done += n
        self._fields |= fields
        counted = format_count(self._done, self._total)
        self._bars.update(self._task, advance=n, counted=counted, shown=format_fields(self._fields))

    def shown(self) -> str:
        return format_fields(self._fields)
