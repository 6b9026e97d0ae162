"""One run in the sandbox, seen from outside: several jobs, their pipes, one deadline."""

from __future__ import annotations

import os
import selectors
import time
from dataclasses import dataclass, field
from typing import Any

from airls_ray.errors import ProcessLost, RunError
from airls_ray.grading.sandbox.handle import NurseryHandle

_GRACE_SECONDS = 0.2
"""How long a program may take to end by itself when its tests are over: so its exit code is known."""
_PATIENCE_SECONDS = 10.0
"""How long a nursery may take to kill a job before it counts as lost."""


@dataclass
class Stream:
    """The reading end of a pipe, and what came through it."""

    descriptor: int
    limit: int
    data: bytearray = field(default_factory=bytearray)
    total: int = 0
    open: bool = True

    def read(self) -> None:
        """Take what is there now, and close at the end of the file; keeps no more than `limit` bytes."""
        while self.open:
            try:
                part = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return
            self.total += len(part)
            self.data += part[: max(self.limit - len(self.data), 0)]
            if not part:
                self.close()
            elif self.total > self.limit:
                return

    def close(self) -> None:
        """Close the descriptor; harmless when done twice."""
        if self.open:
            self.open = False
            os.close(self.descriptor)

    @property
    def too_long(self) -> bool:
        """Whether more than `limit` bytes came."""
        return self.total > self.limit


@dataclass
class Ended:
    """How a run ended: the reports of its jobs in their order, and what stopped it."""

    reports: list[dict[str, Any]]
    timed_out: bool = False
    too_much_output: bool = False
    over: bool = False
    """Whether the job that decides has ended."""


def open_stream(limit: int) -> tuple[Stream, int]:
    """Return the reading end of a new pipe, and the descriptor of the other end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return Stream(reader, limit), writer


def supervise(
    nurseries: list[NurseryHandle], outputs: list[Stream], others: list[Stream], deadline: float
) -> Ended:
    """Wait until the jobs of all `nurseries` have ended.

    The last nursery's job decides: when it has ended, the others have a moment left and are then killed. At
    `deadline` (of time.monotonic), or when one of `outputs` is too long, all are.

    Raises:
        ProcessLost: a nursery died or does not answer.
        RunError: a job could not be shut in, so it was not started.
    """
    ended = Ended([{} for _ in nurseries])
    waiting = dict(enumerate(nurseries))
    killed = False
    with selectors.DefaultSelector() as selector:
        for stream in outputs + others:
            selector.register(stream.descriptor, selectors.EVENT_READ, stream)
        for number, nursery in waiting.items():
            selector.register(nursery.socket, selectors.EVENT_READ, number)
        while waiting:
            for key, _ in selector.select(max(deadline - time.monotonic(), 0.0)):
                if isinstance(key.data, Stream):
                    key.data.read()
                    if not key.data.open or key.data.too_long:
                        selector.unregister(key.fileobj)
                else:
                    ended.reports[key.data] = waiting.pop(key.data).report()
                    selector.unregister(key.fileobj)
            over = len(nurseries) - 1 not in waiting
            if over and not ended.over:
                ended.over = True
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            late = time.monotonic() >= deadline
            if killed and late and waiting:
                raise ProcessLost("the process that starts sandboxed programs does not answer")
            ended.too_much_output = any(stream.too_long for stream in outputs)
            if waiting and not killed and (late or ended.too_much_output):
                ended.timed_out = late and not over
                for nursery in waiting.values():
                    nursery.kill_job()
                killed, deadline = True, time.monotonic() + _PATIENCE_SECONDS
    for stream in outputs + others:
        stream.read()
    errors = [report["error"] for report in ended.reports if "error" in report]
    if errors:
        raise RunError(f"a program could not be shut in, so it was not started: {errors[0]}")
    return ended
