"""The verifier as the loop sees it, and how processes that keep no state are asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from actors.cluster import cluster, processes
from actors.cluster.cluster import Refs
from airls_ray.errors import ProcessLost, RunError

_CLOSE_SECONDS = 5.0

_T = TypeVar("_T")


def ask_again(attempts: int, restart: Callable[[], None], ask: Callable[[], _T]) -> _T:
    """Ask a process that keeps no state; when it is lost, start another one and ask that."""
    for _ in range(attempts - 1):
        try:
            return ask()
        except ProcessLost as error:
            logging.getLogger(__name__).warning("%s; it is started again", error)
            restart()
    return ask()


class VerifierHandle:
    """The verifier. It keeps nothing between calls, so one that dies can be started again and asked again."""

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

    def grade(self, rollouts: Refs, problems: pa.Table, *, learning: bool = False) -> Any:
        """Reference to the grades (schema GRADES; with `learning` also the columns beside them)."""
        more = (True,) if learning else ()

        def ask() -> Any:
            ref = self._handle.grade.remote(rollouts, problems, *more)
            cluster.wait_done(ref, self._deadline, "grading")
            return ref

        return ask_again(self._attempts, self._restart, ask)

    def join(self, grades: Sequence[Any]) -> Any:
        """Reference to the grades of several rounds as one table."""
        if len(grades) == 1:
            return grades[0]

        def ask() -> Any:
            ref = self._handle.join_grades.remote(list(grades))
            cluster.wait_done(ref, self._deadline, "joining grades")
            return ref

        return ask_again(self._attempts, self._restart, ask)

    def call(self, method: str, *arguments: Any) -> Any:
        """Any of the verifier's measurements, waited for."""

        def ask() -> Any:
            ref = getattr(self._handle, method).remote(*arguments)
            return cluster.fetch(ref, self._deadline, f"verifier ({method})")

        return ask_again(self._attempts, self._restart, ask)

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

    def _restart(self) -> None:
        processes.kill(self._handle)
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
