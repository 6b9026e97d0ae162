"""Ray's place in virtual time: actors, references and deadlines of one process, whose seconds only count.

The pool, the loops and the bookkeeping are the project's own code, unchanged: inside `virtual_cluster` the
adapter to Ray (`actors/cluster/cluster.py`) and their clocks are these. What Ray itself costs is not here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any
from unittest import mock

from airls_ray.errors import ProcessLost


class Clock:
    """Virtual seconds, what will happen in them, and the real processor seconds of this stand-in itself."""

    def __init__(self) -> None:
        """At 0, with nothing to come."""
        self.now = 0.0
        self.own_seconds = 0.0
        """Processor seconds spent in the stand-in, which are not the driver's."""
        self.pump: Callable[[], None] | None = None
        """What another thread of the driver does in each of its turns while the loop's thread waits."""
        self._awaited: Ref | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._depth = 0
        self._news: list[Ref] = []

    # ------------------------------------------------------------------ as the module `time`
    def monotonic(self) -> float:
        """Virtual seconds."""
        return self.now

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; it ends early where the loop's thread has what it waits for."""
        with self.aside():
            self._run(lambda: self._woken(), self.now + seconds)

    # ------------------------------------------------------------------------------ what happens
    @contextmanager
    def aside(self) -> Iterator[None]:
        """What the block costs this process is not the driver's."""
        self._depth += 1
        start = time.process_time()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.own_seconds += time.process_time() - start

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Let `act` happen at a moment."""
        heappush(self._events, (moment, next(self._numbers), act))

    def _run(self, done: Callable[[], bool], until: float) -> bool:
        """Let events happen until `done`, or until that moment; returns whether it is done."""
        while not done():
            if not self._events or self._events[0][0] > until:
                self.now = max(self.now, until) if until < float("inf") else self.now
                return done()
            self.now, _, act = heappop(self._events)
            act()
        return True

    def _woken(self) -> bool:
        return self._awaited is not None and self._awaited.ready

    # ------------------------------------------------------------ as `actors.cluster.cluster`
    def fetch(self, refs: Any, deadline_seconds: float, what: str, until: float | None = None) -> Any:
        """See `actors.cluster.cluster.fetch`."""
        if isinstance(refs, list):
            return [self.fetch(ref, deadline_seconds, what, until) for ref in refs]
        if not isinstance(refs, Ref):
            raise TypeError(f"{what} is no reference: {refs!r}")
        end = self.now + deadline_seconds if until is None else until
        if not self._wait(refs, end):
            raise ProcessLost(f"{what} did not finish within {deadline_seconds:g} s")
        return refs.value

    def _wait(self, ref: Ref, until: float) -> bool:
        if self.pump is None or self._awaited is not None:
            with self.aside():
                return self._run(lambda: ref.ready, until)
        self._awaited = ref
        try:
            while not ref.ready and self.now < until:
                self.pump()
        finally:
            self._awaited = None
        return ref.ready

    def wait_done(self, ref: Any, deadline_seconds: float, what: str) -> None:
        """See `actors.cluster.cluster.wait_done`."""
        self.fetch(ref, deadline_seconds, what)

    def all_ready(self, refs: Sequence[Ref], timeout: float) -> list[Ref]:
        """See `actors.cluster.cluster.all_ready`."""
        with self.aside():
            if not any(ref.ready for ref in refs):
                wanted = set(refs)
                self._news.clear()
                self._run(lambda: self._woken() or not wanted.isdisjoint(self._news), self.now + timeout)
            return [ref for ref in refs if ref.ready]

    def came(self, ref: Ref) -> None:
        """The value of a reference is there."""
        self._news.append(ref)

    def put(self, value: Any) -> Ref:
        """See `actors.cluster.cluster.put`."""
        return Ref.of(value)


class Ref:
    """A reference to a value that is there, or will be."""

    __slots__ = ("_then", "ready", "value")

    def __init__(self) -> None:
        """Of a value that is not there yet."""
        self.ready, self.value = False, None
        self._then: list[Callable[[], None]] = []

    @classmethod
    def of(cls, value: Any) -> Ref:
        """To a value that is there."""
        ref = cls()
        ref.set(value)
        return ref

    def then(self, act: Callable[[], None]) -> None:
        """Let `act` happen when the value is there, which may be now."""
        if self.ready:
            act()
        else:
            self._then.append(act)

    def set(self, value: Any) -> None:
        """The value is there."""
        self.value, self.ready = value, True
        for act in self._then:
            act()
        self._then.clear()


class VirtualActor:
    """An actor: its calls run one after the other, in the order in which they came.

    A method of its object returns the seconds that the call takes, and its value. One called `METHOD_begins`
    is told when a call arrives, and may return the moment before which it cannot begin.
    """

    def __init__(self, clock: Clock, what: Any) -> None:
        """`what`: the object; it has no process."""
        self._clock, self._what = clock, what
        self._queue: deque[_Call] = deque()
        self._busy = False

    def __getattr__(self, name: str) -> Any:
        return _Method(self, name)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Ref:
        """Add a call behind those that wait."""
        made = _Call(name, arguments)
        with self._clock.aside():
            self._queue.append(made)
            self._arrive(made)
        return made.ref

    def _arrive(self, call: _Call) -> None:
        """Nothing begins before all that it reads is there."""
        missing = next((one for one in call.reads() if not one.ready), None)
        if missing is not None:
            missing.then(lambda: self._arrive(call))
            return
        begins = getattr(self._what, f"{call.name}_begins", None)
        call.earliest = begins(self._clock.now, *call.values()) if begins is not None else 0.0
        self._next()

    def _next(self) -> None:
        if self._busy or not self._queue or self._queue[0].earliest is None:
            return
        self._busy = True
        call = self._queue.popleft()
        seconds, value = getattr(self._what, call.name)(*call.values())
        assert call.earliest is not None
        self._clock.at(max(self._clock.now, call.earliest) + seconds, lambda: self._end(call.ref, value))

    def _end(self, ref: Ref, value: Any) -> None:
        self._busy = False
        ref.set(value)
        self._clock.came(ref)
        self._next()


class _Call:
    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments, self.ref = name, arguments, Ref()
        self.earliest: float | None = None
        """Moment before which it cannot begin; None: what it reads is not there yet."""

    def reads(self) -> Iterator[Ref]:
        """References among the arguments and in their lists, which the object resolves for itself."""
        for one in self.arguments:
            yield from (part for part in (one if isinstance(one, list | tuple) else [one]) if _is_ref(part))

    def values(self) -> list[Any]:
        """The arguments as the object gets them."""
        return [one.value if isinstance(one, Ref) else one for one in self.arguments]


def _is_ref(value: Any) -> bool:
    return isinstance(value, Ref)


class _Method:
    def __init__(self, actor: VirtualActor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Ref:
        """As of an actor's method."""
        return self._actor.call(self._name, arguments)


@contextmanager
def virtual_cluster() -> Iterator[Clock]:
    """Let the pool and the loops run in virtual time inside the block, in which the clock begins at 0."""
    from actors.cluster import cluster, processes
    from actors.rollout import node_calls, rollout_pool
    from actors.train import rollout_stream, tracking

    clock = Clock()
    ray = {name: getattr(clock, name) for name in ("fetch", "wait_done", "all_ready", "put")}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(cluster, **ray))
        stack.enter_context(mock.patch.multiple(processes, kill=_nothing, end=_nothing))
        for module in (rollout_pool, node_calls, tracking, rollout_stream):
            stack.enter_context(mock.patch.object(module, "time", clock))
        yield clock


def _nothing(handle: Any) -> None:
    """There is no process to end."""
