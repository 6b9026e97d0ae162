"""One grader process as its parent sees it: non-blocking pipes, what it owes, and when it last moved."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

_READ_BYTES = 1 << 16


class Child:
    """A process that answers lines with lines; never blocks its parent.

    It leads a process group of its own: `kill` ends what its grader started, too, and Ctrl-C in a
    terminal reaches the parent alone.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], setup: bytes) -> None:
        """Start the process and queue `setup`, its first line."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.input = self._process.stdin.fileno()
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.input, False)
        os.set_blocking(self.output, False)
        self.pid = self._process.pid
        self.ready = False
        """Whether it has said that it can take requests."""
        self.greeting = ""
        """What it said about itself when it was ready."""
        self.closed = False
        """Whether it closed its output: it is dead or dying."""
        self.pending: deque[int] = deque()
        """Requests sent and not answered, in order; it works on the first."""
        self.last_progress = time.monotonic()
        """When it last answered, or was given work while idle."""
        self._outbox = bytearray(setup)
        self._inbox = b""

    @property
    def wants_to_write(self) -> bool:
        """Whether there is something to send."""
        return bool(self._outbox)

    def send(self, indices: Sequence[int], line: bytes) -> None:
        """Queue a chunk whose requests are `indices`."""
        if not self.pending:
            self.last_progress = time.monotonic()
        self.pending.extend(indices)
        self._outbox += line
        self.write()

    def write(self) -> None:
        """Send as much as the pipe takes now."""
        while self._outbox:
            try:
                sent = os.write(self.input, self._outbox)
            except BlockingIOError:
                return
            except BrokenPipeError:  # it died; reading shows what it still answered
                self._outbox.clear()
                return
            del self._outbox[:sent]

    def read(self) -> list[bytes]:
        """Return the complete lines that have arrived, without waiting."""
        data = bytearray(self._inbox)
        while not self.closed:
            try:
                part = os.read(self.output, _READ_BYTES)
            except BlockingIOError:
                break
            self.closed = not part
            data += part
        *lines, self._inbox = bytes(data).split(b"\n")
        if lines:
            self.last_progress = time.monotonic()
        return lines

    def kill(self) -> int:
        """Kill the process group, wait for the process, and return its exit status.

        What it started dies as well where the process ended by itself: until somebody has waited for it, no
        other process or group gets its number.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return status
