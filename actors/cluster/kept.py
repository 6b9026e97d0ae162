"""Processes that outlive the object they held, for the next actor of their kind.

A run waits for imports when it starts: vLLM takes 18 s of a core, the engine of a small policy one second.
Whoever runs several times in one Python process (the demo's stages, a sweep, a suite of tests) can keep them:
inside `kept_processes` an actor that has done its work is emptied, and the next one of the same class,
environment and resources gets its process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from actors.cluster import placement
from actors.cluster.host import Handle

MOST_IDLE = 6
"""More are not kept: an idle engine's process holds most of a GiB."""

_FREE_SECONDS = 3.0
Spec = tuple[Any, ...]
"""What a process was started with; equal ones can stand for each other."""


@dataclass(frozen=True)
class _Kept:
    handle: Handle
    emptied: Any
    """Reference: it has dropped its object."""


_idle: list[_Kept] = []
_depth = 0


@contextmanager
def kept_processes() -> Iterator[None]:
    """Keep processes inside the block, which may stand inside another one; they end with the outermost."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            end_idle()


def active() -> bool:
    """Whether processes are kept now."""
    return _depth > 0


def keep(handle: Handle) -> bool:
    """Take over a process whose object is not needed any more; False where none is kept."""
    if not _depth or handle.spec is None or len(_idle) >= MOST_IDLE:
        return False
    _idle.append(_Kept(handle, handle.process.empty.remote()))
    return True


def take(spec: Spec) -> _Kept | None:
    """An idle process of that kind, which is idle no more; None where there is none."""
    found = next((one for one in _idle if one.handle.spec == spec), None)
    if found is not None:
        _idle.remove(found)
    return found


def make_room(asked: Mapping[str, float]) -> None:
    """End all idle processes where what is asked for (of each resource) is not free beside them.

    Ray tells a while later that an actor's resources are free again.
    """
    until = time.monotonic() + _FREE_SECONDS
    while _idle:
        free = ray.available_resources()
        if all(free.get(name, 0.0) >= amount for name, amount in asked.items()):
            return
        if time.monotonic() > until:
            end_idle()
        time.sleep(0.1)


def end_idle() -> None:
    """End all idle processes."""
    while _idle:
        end(_idle.pop().handle)


def end(handle: Handle) -> None:
    """End an actor's process, and give its room back."""
    if ray.is_initialized():
        ray.kill(handle.process, no_restart=True)
        if handle.room is not None:
            placement.release(handle.room)


def forget() -> None:
    """Forget all idle processes: their cluster is gone."""
    _idle.clear()


def idle() -> Sequence[Handle]:
    """The idle processes."""
    return [one.handle for one in _idle]
