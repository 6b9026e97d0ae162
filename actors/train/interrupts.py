"""What a signal does to a run: the iteration under way, or the last state that is whole, is saved first.

SIGINT is Ctrl-C, SIGTERM is what `ray job stop`, Kubernetes and batch systems send before they kill.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LEARNING = ("prm_update", "prm_score", "policy_update", "sync", "evaluation", "measure")
"""Stages of an iteration in which the learners are ahead of the last whole state."""


class StopSignals:
    """A run's answer to SIGINT and SIGTERM.

    While nothing has learned since the last iteration, the first signal raises KeyboardInterrupt at once.
    While something has, it only sets `asked`, and the loop ends after the iteration; when that takes longer
    than the grace period, or a second signal comes, KeyboardInterrupt is raised all the same.
    """

    def __init__(self, grace_seconds: float = 60.0, say: Callable[[str], None] | None = None) -> None:
        """`say` prints a line out of a signal handler; by default straight to standard error."""
        self._grace = grace_seconds
        self._say = say or _say
        self.asked = False
        """Whether the run is to end."""
        self.learning = False
        """Whether the learners are ahead of the last whole state."""

    def stage(self, name: str) -> None:
        """A stage of the iteration begins."""
        self.learning = name in LEARNING

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen inside the block (the main thread's signals alone are Python's to handle)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {signal.SIGINT: self._ask, signal.SIGTERM: self._ask, signal.SIGALRM: self._overdue}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, self._grace)
        if not self.learning:
            self._say("Stopping: what was learned is saved first; a second signal stops at once")
            raise KeyboardInterrupt
        self._say(
            f"Stopping after this iteration, which is saved if it ends within {self._grace:g} s "
            "(train.grace_seconds); a second signal stops at once"
        )

    def _overdue(self, number: int, frame: Any) -> None:
        raise KeyboardInterrupt


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # a handler may interrupt a write of Python's own
