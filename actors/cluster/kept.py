"""Processes that outlive the object they held, for the next actor of their kind.

A run waits for imports when it starts: vLLM takes 18 s of a core, the engine of a small policy one second.
Whoever runs several times in one Python process (a sweep, a notebook, a suite of tests) can keep them:
inside `kept_processes` an actor that has done its work is emptied, and the next one of the same class and
environment gets its process. Such actors ask Ray for no CPUs, so that an idle one takes none from others, and
those that ask for more than CPUs are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from actors.cluster import placement
from actors.cluster.host import Handle

MOST_IDLE = 8
"""The oldest end where there would be more: what it imported holds half a GiB of each."""

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
    if not _depth or handle.spec is None:
        return False
    if len(_idle) >= MOST_IDLE:
        end(_idle.pop(0).handle)
    _idle.append(_Kept(handle, handle.process.empty.remote()))
    return True


def take(spec: Spec) -> _Kept | None:
    """An idle process of that kind, which is idle no more; None where there is none."""
    found = next((one for one in _idle if one.handle.spec == spec), None)
    if found is not None:
        _idle.remove(found)
    return found


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
