"""The process of an actor, and the handle that its callers hold. Imports nothing heavy, on purpose.

Ray can set a process's environment itself (`runtime_env`), but then every process starts twice: a first
Python reads the environment and becomes a second one. And to hand Ray a class, the driver would have to
import it, with PyTorch behind it. So Ray gets `Host`, which sets the environment and only then imports the
real class.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

_LOW_PRIORITY = 10
"""Niceness of imports that somebody else's imports go before."""

Target = type | str
"""A class, or `module:attribute` of one that only the actor's own process imports."""


class Host:
    """Holds an object of another class and passes calls on to it."""

    def __init__(
        self, target: Target, environment: Mapping[str, str], arguments: Sequence[Any], yields: bool
    ) -> None:
        """Set the environment, import the class and make its object.

        Args:
            target: the class.
            environment: variables that libraries read when they are imported.
            arguments: of the class's constructor.
            yields: import with low priority, since another process is waited for first.
        """
        os.environ.update(environment)
        with no_collection():
            self._cls = _import_with_low_priority(target) if yields else load(target)
        self._object = self._cls(*arguments)

    def __repr__(self) -> str:
        """Name in Ray's dashboard."""
        return repr(self._object)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; Ray has put values in the place of references."""
        return getattr(self._object, method)(*arguments)

    def empty(self) -> None:
        """Drop the object, and leave what it imported to the next one."""
        release = getattr(self._object, "release", None)
        if release is not None:
            release()
        self._object = None
        gc.collect()

    def fill(self, arguments: Sequence[Any]) -> None:
        """Make another object of the same class."""
        self._object = self._cls(*arguments)


@dataclass(frozen=True)
class Handle:
    """An actor as its callers see it: `handle.METHOD.remote(...)` returns a reference at once."""

    process: Any
    """Ray's own handle of the `Host`."""
    name: str
    """Of the class, for Ray's dashboard."""
    spec: tuple[Any, ...] | None = field(default=None, compare=False)
    """What its process was started with, where that may be kept for another actor (`actors.cluster.kept`)."""
    room: Any = field(default=None, compare=False)
    """The placement group that is its room alone."""

    def __getattr__(self, method: str) -> Method:
        """Return the method, which need not exist: the actor's process says so when it is called."""
        if method.startswith("_"):  # what pickle and copy look for
            raise AttributeError(method)
        return Method(self.process, method, f"{self.name}.{method}")


@dataclass(frozen=True)
class Method:
    """A method of an actor."""

    process: Any
    method: str
    shown: str

    def remote(self, *arguments: Any) -> Any:
        """Call it and return the reference of its result at once."""
        return self.process.call.options(name=self.shown).remote(self.method, *arguments)


@contextmanager
def no_collection() -> Iterator[None]:
    """Do not look for garbage inside the block, nor among its objects later.

    Imports make a million objects that stay: to look through them again and again is a tenth of their time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load(target: Target) -> Any:
    """Return the class behind `target`, imported if it is named."""
    if isinstance(target, type):
        return target
    module, _, attribute = target.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


def reference(cls: type) -> Target:
    """`module:attribute` of a class of these packages, which every process can import; another class itself.

    A class that travels by name is imported after the environment is set, one that travels itself before.
    """
    ours = cls.__module__.partition(".")[0] in ("actors", "airls_ray")
    return f"{cls.__module__}:{cls.__qualname__}" if ours else cls


def target_name(target: Target) -> str:
    """The class's own name."""
    return target.__name__ if isinstance(target, type) else target.rpartition(":")[2].rpartition(".")[2]


def _import_with_low_priority(target: Target) -> Any:
    """Import in a thread of its own: Linux lets a thread lower its priority, but not raise it again."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
        try:
            found.append(load(target))
        except BaseException as error:  # raised again below, in the thread that asked
            failed.append(error)

    thread = threading.Thread(target=work, name="low-priority-imports")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
