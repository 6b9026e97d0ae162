"""Trackers: programs of others that are told what a run does, each in a thread of its own.

A tracker that fails or hangs costs no iteration: what it raises is said once and counted, and what it does
not take in time is dropped and counted. Only its start is waited for, since a wrong key should not be found
out at the end of a run.
"""

from __future__ import annotations

import inspect
import logging
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.config.door_section import TrackerConfig
from airls_ray.doors import Kind
from airls_ray.errors import DoorError, RunError
from airls_ray.own_code import keywords_of

_START_SECONDS = 60.0
_END_SECONDS = 60.0
_MOST_WAITING = 200
_CALLS = {"start": 1, "metrics": 2, "summary": 1, "file": 1, "end": 1}
"""Methods, and how many arguments each gets; only `metrics` must be there."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told at the start."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    """All settings, as nested dictionaries of JSON values; without the credentials of `train.storage`."""
    iteration: int = 0
    """Iterations done; above 0 at a resume."""


def make_tracker(found: Any, options: Mapping[str, Any]) -> Any:
    """Return what has the methods: an object of a class, made with `options`, or a function as its `metrics`.

    Raises:
        DoorError: it has no `metrics`, it takes not all of the options, or a method takes other arguments;
            the text follows its name.
    """
    if not inspect.isclass(found) and not hasattr(found, "metrics"):
        if not callable(found):
            raise DoorError(f"is {found!r:.40}, which is neither a class nor a function")
        if options:
            raise DoorError("is a function, which takes no options: make it a class")
        found = _Function(found)
    elif inspect.isclass(found):
        keywords_of(found, options)
        found = found(**options)
    if not hasattr(found, "metrics"):
        raise DoorError("has no method `metrics`")
    for name, count in _CALLS.items():
        method = getattr(found, name, None)
        if method is not None:
            try:
                inspect.signature(method).bind(*[None] * count)
            except TypeError:
                raise DoorError(
                    f"has {name}{inspect.signature(method)}, which is called with {count}"
                ) from None
    return found


class _Function:
    """A function as a tracker: it is told the metrics."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.metrics = function


TRACKER = Kind(
    name="tracker",
    protocol=(
        "a function (iteration, values), or a class with metrics(iteration, values) and, as it likes, "
        "start(run), summary(values), file(path), end(how)"
    ),
    package="airls_ray.trackers",
    attribute="Tracker",
    example="jsonl",
    make=make_tracker,
)
"""Programs that are told what a run does (`train.trackers`)."""


class Trackers:
    """All trackers of a run. As a context it ends them, with how the run ended."""

    def __init__(self, trackers: Sequence[TrackerConfig], say: Say) -> None:
        """Load them.

        Args:
            trackers: of the configuration.
            say: told what a tracker raised, once each.

        Raises:
            DoorError: one does not open.
        """
        made = [(one.shown, one.open()) for one in trackers]
        self._told = [_Told(label, tracker, say) for label, tracker in made]

    def start(self, run: TrackedRun) -> None:
        """Start all side by side and wait for them.

        Raises:
            RunError: one raised, or is not ready in time.
        """
        begun = [one.tell("start", run) for one in self._told]
        until = time.monotonic() + _START_SECONDS
        for one, done in zip(self._told, begun, strict=True):
            if not done.wait(max(until - time.monotonic(), 0.0)):
                raise RunError(
                    f"the tracker {one.label} has not started within {_START_SECONDS:g} s: leave it out of "
                    "train.trackers, or mend what it connects to"
                )
            if one.errors:
                raise RunError(
                    f"the tracker {one.label} cannot start ({one.last}): mend that, or leave it out of "
                    "train.trackers"
                )

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Tell an iteration's metrics; what is NaN or infinite is left out."""
        for one in self._told:
            one.tell("metrics", iteration, {name: v for name, v in values.items() if math.isfinite(v)})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Tell the summary."""
        for one in self._told:
            one.tell("summary", dict(values))

    def file(self, path: Path) -> None:
        """Hand over a file."""
        for one in self._told:
            one.tell("file", path)

    def counts(self) -> dict[str, float]:
        """Calls that failed or were dropped, for metrics.jsonl; nothing where there are no trackers."""
        return {"trackers/errors": float(sum(one.errors for one in self._told))} if self._told else {}

    def end(self, how: str) -> None:
        """Say how the run ended (`finished`, `failed`, `interrupted`), and wait for what is under way."""
        ended = [one.tell("end", how) for one in self._told]
        until = time.monotonic() + _END_SECONDS
        for one, done in zip(self._told, ended, strict=True):
            if not done.wait(max(until - time.monotonic(), 0.0)):
                one.complain(f"has not ended within {_END_SECONDS:g} s, and may lack the last figures")

    def __enter__(self) -> Trackers:
        """Return the trackers."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End them."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.end("finished" if kind is None else "interrupted" if interrupted else "failed")


class _Told:
    """One tracker in its thread."""

    def __init__(self, label: str, tracker: Any, say: Say) -> None:
        self.label, self._tracker, self._say = label, tracker, say
        self.errors = 0
        self.last = ""
        """What it raised last, in a line."""
        self._complained = False
        self._calls: queue.Queue[tuple[str, tuple[Any, ...], threading.Event]] = queue.Queue()
        threading.Thread(target=self._work, name=f"tracker {label}", daemon=True).start()

    def tell(self, method: str, *arguments: Any) -> threading.Event:
        """Queue a call; the event is set when it is done, or dropped."""
        done = threading.Event()
        if self._calls.qsize() >= _MOST_WAITING and method == "metrics":
            self.errors += 1
            self.complain("takes too long, and calls to it are dropped")
            done.set()
        else:
            self._calls.put((method, arguments, done))
        return done

    def complain(self, what: str) -> None:
        """Say what is wrong with it; later complaints are only counted."""
        if not self._complained:
            self._complained = True
            self._say(f"Warning: the tracker {self.label} {what}")

    def _work(self) -> None:
        while True:
            name, arguments, done = self._calls.get()
            method = getattr(self._tracker, name, None)
            try:
                if method is not None:
                    method(*arguments)
            except (Exception, SystemExit) as error:  # whatever a stranger's tracker may raise
                self.errors += 1
                self.last = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                logging.getLogger(__name__).warning("%s", traceback.format_exc())
                if name != "start":
                    self.complain(f"raised {self.last}, which is counted from now on (trackers/errors)")
            done.set()
