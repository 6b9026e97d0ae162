"""The verifier as the loop sees it, and how processes that keep no state are asked again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from actors.cluster import cluster, processes
from actors.cluster.cluster import Refs
from airls_ray.errors import ProcessLost, RunError

_CLOSE_SECONDS = 5.0

_P = TypeVar("_P")
_T = TypeVar("_T")


def ask_again(
    attempts: int, process: Callable[[], _P], replace: Callable[[_P], None], ask: Callable[[_P], _T]
) -> _T:
    """Ask a process that keeps no state; when it is lost, replace it and ask the one that is there then.

    Args:
        attempts: times that is asked.
        process: the one that is there now.
        replace: starts another one, unless another thread has replaced the lost one already.
        ask: a call, waited for.

    Raises:
        ProcessLost: it was lost each time.
    """
    for _ in range(attempts - 1):
        asked = process()
        try:
            return ask(asked)
        except ProcessLost as error:
            logging.getLogger(__name__).warning("%s; it is started again", error)
            replace(asked)
    return ask(process())


class VerifierHandle:
    """The verifier. It keeps nothing between calls, so one that dies can be started again and asked again.

    The asynchronous loop asks it from two threads: one death is one restart, whoever finds out first.
    """

    def __init__(
        self,
        handle: Any,
        deadline_seconds: float,
        restart: Callable[[], Any] | None = None,
        attempts: int = 1,
    ) -> None:
        """`handle`: the actor; `restart`: makes another one; `attempts`: times that a call is tried."""
        self._handle = handle
        self._deadline = deadline_seconds
        self._make = restart
        self._attempts = attempts if restart is not None else 1
        self._restarting = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock: the endpoint's replica gets a copy, with threads of its own."""
        return {name: value for name, value in vars(self).items() if name != "_restarting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of this process."""
        vars(self).update(state, _restarting=threading.Lock())

    def grade(self, rollouts: Refs, problems: pa.Table, *, learning: bool = False) -> Any:
        """Reference to the grades (schema GRADES; with `learning` also the columns beside them)."""
        more = (True,) if learning else ()

        def ask(handle: Any) -> Any:
            ref = handle.grade.remote(rollouts, problems, *more)
            cluster.wait_done(ref, self._deadline, "grading")
            return ref

        return self._ask(ask)

    def join(self, grades: Sequence[Any]) -> Any:
        """Reference to the grades of several rounds as one table."""
        if len(grades) == 1:
            return grades[0]

        def ask(handle: Any) -> Any:
            ref = handle.join_grades.remote(list(grades))
            cluster.wait_done(ref, self._deadline, "joining grades")
            return ref

        return self._ask(ask)

    def call(self, method: str, *arguments: Any) -> Any:
        """Any of the verifier's measurements, waited for."""

        def ask(handle: Any) -> Any:
            ref = getattr(handle, method).remote(*arguments)
            return cluster.fetch(ref, self._deadline, f"verifier ({method})")

        return self._ask(ask)

    def start(self, method: str, *arguments: Any) -> Any:
        """Begin a measurement; `finish` waits for it."""
        return getattr(self._handle, method).remote(*arguments), method, arguments

    def finish(self, begun: Any) -> Any:
        """The result of what `start` began; asked again where the verifier was lost."""
        ref, method, arguments = begun
        try:
            return cluster.fetch(ref, self._deadline, f"verifier ({method})")
        except ProcessLost:
            return self.call(method, *arguments)

    def _ask(self, ask: Callable[[Any], _T]) -> _T:
        return ask_again(self._attempts, lambda: self._handle, self._replace, ask)

    def _replace(self, lost: Any) -> None:
        with self._restarting:
            if self._handle is lost:
                processes.kill(lost)
                assert self._make is not None
                self._handle = self._make()

    def close(self) -> None:
        """End the child processes (a verifier that is busy or gone is ended with its process)."""
        try:
            cluster.fetch(self._handle.close.remote(), _CLOSE_SECONDS, "closing the verifier")
        except RunError:
            logging.getLogger(__name__).warning("the verifier did not close in time")
            processes.kill(self._handle)
        else:
            processes.end(self._handle)
