"""Which progress display this process has."""

from __future__ import annotations

import sys

from airls_ray.console.progress import PlainProgress, Progress, QuietProgress


def make_progress(quiet: bool = False, terminal: bool | None = None) -> Progress:
    """Return bars if standard error is a terminal (or `terminal` says so), else plain lines."""
    if quiet:
        return QuietProgress()
    on_terminal = sys.stderr.isatty() if terminal is None else terminal
    if not on_terminal:
        return PlainProgress()
    from airls_ray.console.terminal import TerminalProgress

    return TerminalProgress()
