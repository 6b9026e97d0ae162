"""A pool of grader processes: every response has a hard deadline, and no grader can take others down.

Verdicts come back one line a response, so the head of a child's pending queue is the response it works
on. If it makes no progress for the deadline, its process group is killed by id and replaced; only that
response is lost (outcome 0, status "timeout", or "crashed" if the child died by itself), the others are
sent again. A grader that raises has given no verdict on that response (outcome 0, status "raised"), and its
traceback is told once.
"""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airls_ray.errors import RunError
from airls_ray.grading.child import Child

_LOG = logging.getLogger(__name__)
_MOST_KINDS = 10
"""Kinds of errors of a grader that are told; what comes after them is more of the same."""
LARGEST_CHUNK = 64
"""Responses per line to a child: amortises the system calls."""

Lost = Literal["timeout", "crashed"]


@dataclass(frozen=True)
class GradeRequest:
    """One response to judge; `details` is the problem's JSON, `steps` the texts of the steps."""

    prompt: str
    answer: str
    details: str
    response: str
    steps: Sequence[str] = ()


@dataclass(frozen=True)
class GradeResult:
    """Verdict: outcome in [0, 1], canonical answer, truth per step (None: unknown), and how it ended."""

    outcome: float
    answer: str | None
    step_truth: list[bool] | None
    status: str
    """"graded" or the reason that the task gives; without a verdict "timeout", "crashed" or "raised"."""


class GraderPool:
    """Child processes that grade; see the module's docstring. Not for use by several threads at once."""

    def __init__(
        self,
        task_config_json: str,
        processes: int,
        deadline_seconds: float,
        *,
        memory_gib: float = 4.0,
        start_deadline_seconds: float = 60.0,
        largest_chunk: int = LARGEST_CHUNK,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start the children without waiting for them.

        Args:
            task_config_json: the task's configuration, as the child reads it.
            processes: number of children.
            deadline_seconds: longest time for one response.
            memory_gib: address space of a child.
            start_deadline_seconds: longest time for a child to be ready.
            largest_chunk: most responses that a child is given at once; 1 where one may take seconds, so that
                none waits behind it while another child is idle.
            command: what to start instead of this package's worker.
        """
        self._deadline = deadline_seconds
        self._largest_chunk = largest_chunk
        self._start_deadline = start_deadline_seconds
        self._command = [
            *(command or (sys.executable, "-m", "airls_ray.grading.worker")),
            f"--deadline-seconds={deadline_seconds}",
            f"--memory-gib={memory_gib}",
        ]
        self._setup = json.dumps(json.loads(task_config_json)).encode() + b"\n"  # one line
        self._told: set[str] = set()
        self._complaints: list[str] = []
        self._children: list[Child] = []
        # Also when the owner is dropped or the interpreter ends: no process stays behind.
        self._finalizer = weakref.finalize(self, _kill_all, self._children)
        self._children += [self._start() for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """Process ids of the children, as they are now."""
        return [child.pid for child in self._children]

    def grade(self, items: Sequence[GradeRequest]) -> list[GradeResult]:
        """Judge `items` and return their results in the same order.

        Raises:
            RunError: a child cannot be started, an outcome is no number from 0 to 1, or the pool is closed.
        """
        if not self._finalizer.alive:
            raise RunError("the grader pool is closed; make a new one")
        batch = _Batch(items, len(self._children), self._largest_chunk, self._complain)
        try:
            self._work(batch)
        except BaseException:  # what children still answer to this batch must not reach the next
            for position, child in enumerate(self._children):
                if child.pending or not child.ready:
                    child.kill()
                    self._children[position] = self._start()
            raise
        return batch.finished()

    def complaints(self) -> list[str]:
        """Sentences about what graders raised since the last call, with its traceback; each kind once."""
        found, self._complaints = self._complaints, []
        return found

    def _complain(self, trace: str) -> None:
        lines = trace.strip().splitlines()
        kind = "\n".join([*(line for line in lines if line.lstrip().startswith("File "))][-1:])
        kind += lines[-1].partition(":")[0]
        if kind not in self._told and len(self._told) < _MOST_KINDS:
            self._told.add(kind)
            text = f"the grader raised an error, and such responses count as wrong:\n{trace.strip()}"
            self._complaints.append(text)
            _LOG.warning("%s", text)

    def _work(self, batch: _Batch) -> None:
        for child in self._children:
            if not child.ready:  # it may have waited long for us: its time to become ready begins now
                child.last_progress = time.monotonic()
        while batch.unfinished:
            for position in range(len(self._children)):
                batch.take(self._children[position])
                self._replace_ended(position, batch)
                batch.feed(self._children[position])
            if batch.unfinished:
                self._wait()

    def close(self) -> None:
        """Kill all children; harmless when done twice."""
        self._finalizer()

    def __enter__(self) -> GraderPool:
        """Return the pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def _start(self) -> Child:
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        # A grader needs nothing of the cluster, and must not be able to join it.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        environment = {**inherited, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return Child(self._command, environment, self._setup)

    def _wait(self) -> None:
        """Sleep until a child has something to read or can be written to, or a deadline comes."""
        now = time.monotonic()
        busy = [child for child in self._children if child.pending or not child.ready]
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.output, selectors.EVENT_READ)
                if child.wants_to_write:
                    selector.register(child.input, selectors.EVENT_WRITE)
            selector.select(min((max(self._due(child) - now, 0.0) for child in busy), default=0.0))
        for child in self._children:
            child.write()

    def _due(self, child: Child) -> float:
        return child.last_progress + (self._deadline if child.ready else self._start_deadline)

    def _replace_ended(self, position: int, batch: _Batch) -> None:
        child = self._children[position]
        status = self._ended(child)
        if status is not None:
            child.kill()
            batch.give_up(child, status)
            self._children[position] = self._start()

    def _ended(self, child: Child) -> Lost | None:
        """Return how a child came to its end that is dead or out of time, None for one that goes on."""
        late = (bool(child.pending) or not child.ready) and time.monotonic() >= self._due(child)
        if child.closed or late:
            if not child.ready:
                reason = f"is not ready after {self._start_deadline:g} s" if late else "died at its start"
                raise RunError(f"a grader process {reason}; its own message is on standard error")
            return "crashed" if child.closed else "timeout"
        return None


class _Batch:
    """The requests of one `grade` call: what waits, and what is done."""

    def __init__(
        self,
        items: Sequence[GradeRequest],
        children: int,
        largest_chunk: int,
        complain: Callable[[str], None],
    ) -> None:
        self._items = items
        self._complain = complain
        self._results: list[GradeResult | None] = [None] * len(items)
        self._waiting = deque(range(len(items)))
        self._chunk = max(1, min(largest_chunk, math.ceil(len(items) / (2 * children))))
        self.unfinished = len(items)

    def feed(self, child: Child) -> None:
        """Give `child` a further chunk when it has less than one left, so that it never waits."""
        if not child.ready or len(child.pending) >= self._chunk or not self._waiting:
            return
        indices = [self._waiting.popleft() for _ in range(min(self._chunk, len(self._waiting)))]
        chunk = [_request(self._items[index]) for index in indices]
        child.send(indices, json.dumps(chunk).encode() + b"\n")

    def take(self, child: Child) -> None:
        """Store what `child` has answered."""
        lines = child.read()
        if lines and not child.ready:
            if lines[0] != b"ready":
                trace = json.loads(lines[0]).strip()
                raise RunError(f"a grader process cannot start: {trace.splitlines()[-1]}")
            child.ready = True
            lines = lines[1:]
        for line in lines:
            outcome, answer, truth, reason, trace = json.loads(line)
            if trace is not None:
                self._complain(trace)
            if not 0.0 <= outcome <= 1.0:  # NaN, too
                problem = self._items[child.pending[0]].prompt
                raise RunError(
                    f"the grader gave the outcome {outcome} for a response to {problem[:80]!r}, and an "
                    "outcome is a number from 0 to 1: correct the grader"
                )
            self._store(child.pending.popleft(), GradeResult(outcome, answer, truth, reason))

    def give_up(self, child: Child, status: Lost) -> None:
        """Give up the request that a dead child was working on; the rest of its requests wait again."""
        if child.pending:
            self._store(child.pending.popleft(), GradeResult(0.0, None, None, status))
        self._waiting.extendleft(reversed(child.pending))

    def finished(self) -> list[GradeResult]:
        """Return all results in the order of the requests."""
        return [result for result in self._results if result is not None]

    def _store(self, index: int, result: GradeResult) -> None:
        self._results[index] = result
        self.unfinished -= 1


def _request(item: GradeRequest) -> list[Any]:
    return [item.prompt, item.answer, item.details, item.response, list(item.steps)]


def _kill_all(children: list[Child]) -> None:
    for child in children:
        child.kill()
