"""Processes that a test starts, found again by a mark that they inherit."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def marked(mark: str) -> list[psutil.Process]:
    """All living processes that inherited the mark, whoever is their parent by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRLS_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until(holds: Callable[[], bool], seconds: float, every: float = 0.1) -> None:
    """Return when it holds, or after so many seconds."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(every)
