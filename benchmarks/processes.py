"""A command with all the processes that it starts: their processor seconds and memory."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_LOOK = 0.5


@dataclass(frozen=True)
class Usage:
    """Of a command and its descendants; what a process did after the last look at it is missing."""

    processor: float
    """Seconds."""
    memory: float
    """GiB, the most at one look, what processes share counted once for each."""


def watched(
    command: Sequence[str], longest: float, environment: Mapping[str, str] | None = None
) -> tuple[str, Usage]:
    """Run a command to its end; returns what it printed, and its usage.

    Raises:
        RuntimeError: it failed, or took longer than `longest` seconds.
    """
    seconds: dict[int, float] = {}
    most = 0.0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        root, until = psutil.Process(process.pid), time.monotonic() + longest
        while process.poll() is None and time.monotonic() < until:
            memory = 0.0
            for one in _with_descendants(root):
                try:
                    times = one.cpu_times()
                    memory += one.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
                seconds[one.pid] = times.user + times.system
            most = max(most, memory)
            time.sleep(_LOOK)
        if process.poll() is None:
            process.kill()
        output.seek(0)
        text = output.read()
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text[-2000:]}")
    return text, Usage(sum(seconds.values()), most / 2**30)


def _with_descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
