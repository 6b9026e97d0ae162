"""A pool of child processes that answer: every item has a hard deadline, and no child can take others down.

Answers come back one line an item, so the head of a child's pending queue is the item it works on. If it
makes no progress for the deadline, its process group is killed by id and replaced; only that item is lost
("timeout", or "crashed" if the child died by itself), the others are sent again. What an item, a line and a
loss are, a subclass says: graders (pool.py) and rewards (reward_pool.py).
"""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from airls_ray.errors import DoorError, RunError
from airls_ray.grading.child import Child

_LOG = logging.getLogger(__name__)
_MOST_KINDS = 10
"""Kinds of errors of a child that are told; what comes after them is more of the same."""

START_SECONDS = 300.0
"""Longest time for a child to be ready: its imports take seconds, and minutes on a machine that is full."""

Lost = Literal["timeout", "crashed"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class ChildPool(ABC, Generic[Item, Result]):
    """Child processes that answer; see the module's docstring. Not for use by several threads at once."""

    what = "child"
    """Which children they are, in sentences about them."""

    def __init__(
        self,
        command: Sequence[str],
        setup_json: str,
        processes: int,
        deadline_seconds: float,
        *,
        start_deadline_seconds: float = START_SECONDS,
        largest_chunk: int,
    ) -> None:
        """Start the children without waiting for them.

        Args:
            command: what a child runs.
            setup_json: the first line that it reads.
            processes: number of children.
            deadline_seconds: longest time for one item.
            start_deadline_seconds: longest time for a child to be ready.
            largest_chunk: most items that a child is given at once; 1 where one may take seconds, so that
                none waits behind it while another child is idle.
        """
        self._deadline = deadline_seconds
        self._largest_chunk = largest_chunk
        self._start_deadline = start_deadline_seconds
        self._command = list(command)
        self._setup = json.dumps(json.loads(setup_json)).encode() + b"\n"  # one line
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

    @abstractmethod
    def encode(self, item: Item) -> Any:
        """Return an item as JSON takes it."""

    @abstractmethod
    def decode(self, item: Item, line: Any) -> Result:
        """Return the result that a child's line gives for `item`; an error ends the whole call."""

    @abstractmethod
    def lost(self, item: Item, why: Lost) -> Result:
        """Return the result of an item whose child had to be ended, or ended."""

    def work(self, items: Sequence[Item]) -> list[Result]:
        """Have `items` done and return their results in the same order.

        Raises:
            RunError: a child cannot be started, or the pool is closed.
        """
        if not self._finalizer.alive:
            raise RunError(f"the {self.what} pool is closed; make a new one")
        batch = _Batch(self, items, len(self._children), self._largest_chunk)
        try:
            self._work(batch)
        except BaseException:  # what children still answer to this batch must not reach the next
            for position, child in enumerate(self._children):
                if child.pending or not child.ready:
                    child.kill()
                    self._children[position] = self._start()
            raise
        return batch.finished()

    def wait_ready(self) -> str:
        """Wait until a child is ready and return what it said about itself (`ready ...`).

        Raises:
            RunError: none can be started.
        """
        while True:
            self._work(_Batch(self, (), len(self._children), 1), until_ready=True)
            for child in self._children:
                if child.ready:
                    return child.greeting

    def complaints(self) -> list[str]:
        """Sentences about what children raised since the last call, with its traceback; each kind once."""
        found, self._complaints = self._complaints, []
        return found

    def complain(self, what: str, trace: str | None = None) -> None:
        """Keep, and log, that a child raised an error, unless it is of a kind that was told before."""
        text, kind = what, what
        if trace is not None:
            lines = trace.strip().splitlines()
            kind = "\n".join([*(line for line in lines if line.lstrip().startswith("File "))][-1:])
            kind += lines[-1].partition(":")[0]
            text = f"{what}:\n{trace.strip()}"
        if kind not in self._told and len(self._told) < _MOST_KINDS:
            self._told.add(kind)
            self._complaints.append(text)
            _LOG.warning("%s", text)

    def _work(self, batch: _Batch[Item, Result], until_ready: bool = False) -> None:
        for child in self._children:
            if not child.ready:  # it may have waited long for us: its time to become ready begins now
                child.last_progress = time.monotonic()

        def goes_on() -> bool:
            waits = until_ready and not any(child.ready for child in self._children)
            return bool(batch.unfinished) or waits

        while goes_on():
            for position in range(len(self._children)):
                batch.take(self._children[position])
                self._replace_ended(position, batch)
                batch.feed(self._children[position])
            if goes_on():
                self._wait()

    def close(self) -> None:
        """Kill all children; harmless when done twice."""
        self._finalizer()

    def __enter__(self) -> Self:
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

    def _replace_ended(self, position: int, batch: _Batch[Item, Result]) -> None:
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
                raise RunError(f"a {self.what} process {reason}; its own message is on standard error")
            return "crashed" if child.closed else "timeout"
        return None


class _Batch(Generic[Item, Result]):
    """The items of one call: what waits, and what is done."""

    def __init__(
        self, pool: ChildPool[Item, Result], items: Sequence[Item], children: int, largest_chunk: int
    ) -> None:
        self._pool = pool
        self._items = items
        self._results: dict[int, Result] = {}
        self._waiting = deque(range(len(items)))
        self._chunk = max(1, min(largest_chunk, math.ceil(len(items) / (2 * children))))
        self.unfinished = len(items)

    def feed(self, child: Child) -> None:
        """Give `child` a further chunk when it has less than one left, so that it never waits."""
        if not child.ready or len(child.pending) >= self._chunk or not self._waiting:
            return
        indices = [self._waiting.popleft() for _ in range(min(self._chunk, len(self._waiting)))]
        chunk = [self._pool.encode(self._items[index]) for index in indices]
        child.send(indices, json.dumps(chunk).encode() + b"\n")

    def take(self, child: Child) -> None:
        """Store what `child` has answered."""
        lines = child.read()
        if lines and not child.ready:
            child.greeting = _greeting(lines[0], self._pool.what)
            child.ready = True
            lines = lines[1:]
        for line in lines:
            index = child.pending[0]
            result = self._pool.decode(self._items[index], json.loads(line))
            self._store(child.pending.popleft(), result)

    def give_up(self, child: Child, why: Lost) -> None:
        """Give up the item that a dead child was working on; the rest of its items wait again."""
        if child.pending:
            index = child.pending.popleft()
            self._store(index, self._pool.lost(self._items[index], why))
        self._waiting.extendleft(reversed(child.pending))

    def finished(self) -> list[Result]:
        """Return all results in the order of the items."""
        return [self._results[index] for index in range(len(self._items))]

    def _store(self, index: int, result: Result) -> None:
        self._results[index] = result
        self.unfinished -= 1


def _greeting(line: bytes, what: str) -> str:
    """Return what follows `ready`; a child that cannot start says why: a sentence, or a traceback."""
    if line.startswith(b"ready"):
        return line.removeprefix(b"ready").strip().decode()
    said = json.loads(line)
    if isinstance(said, dict):
        raise DoorError(said["sentence"])
    raise RunError(f"a {what} process cannot start: {said.strip().splitlines()[-1]}")


def _kill_all(children: list[Child]) -> None:
    for child in children:
        child.kill()
