"""Actors that are coming up, side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors.cluster import cluster
from airls_ray.console.progress import Progress

_KERNEL_SECONDS = 60.0
"""For an answer that an actor has ready when it is up."""


class Starting:
    """Waits for the `start` calls of actors, with a line and its seconds for each that is up.

    A call to an actor waits in its process until `start` has returned, so work may be handed out before:
    whoever has something else to do meanwhile calls `poll` now and then, and `wait` where it needs them all.
    """

    def __init__(
        self,
        calls: Mapping[str, Sequence[Any]],
        deadline_seconds: float,
        progress: Progress,
        kernels: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is waited for.

        Args:
            calls: references of the `start` calls, which return seconds, by the names of the actors.
            deadline_seconds: longest time until all are up.
            progress: where the lines go.
            kernels: references of what models compute with (`airls_ray.learning.engine.kernels`), by name.
        """
        self._names = {
            ref: f"{name} {index}" if len(refs) > 1 else name
            for name, refs in calls.items()
            for index, ref in enumerate(refs)
        }
        self._together = {ref: refs for refs in calls.values() for ref in refs}
        self._until = time.monotonic() + deadline_seconds
        self._progress = progress
        self._kernels = dict(kernels or {})
        self.kernels: dict[str, dict[str, str]] = {}
        """What the models compute with, by the names of their actors, once all are up."""

    def poll(self) -> None:
        """Say who has come up; does not wait.

        Raises:
            UserError: one of them failed, or the deadline passed.
        """
        if self._names:
            self._take(cluster.all_ready(list(self._names), 0.0))

    def wait(self) -> None:
        """Return when all are up.

        Raises:
            UserError: see `poll`.
        """
        while self._names:
            left = max(self._until - time.monotonic(), 0.0)
            self._take(cluster.first_ready(list(self._names), left) or list(self._names))
        for name in list(self._kernels):
            ref = self._kernels.pop(name)
            said: dict[str, str] = cluster.fetch(ref, _KERNEL_SECONDS, f"asking the {name} for its attention")
            self.kernels[name] = said
            self._progress.say(f"{name}: attention {said['attention']}, rows {said['layout']}")

    def _take(self, refs: Sequence[Any]) -> None:
        for ref in refs:
            name = self._names.pop(ref)
            left = max(self._until - time.monotonic(), 0.0)
            what = f"starting the {name}"
            seconds = cluster.fetch_together(ref, left, what, self._together[ref])
            self._progress.phase_done(f"{name} ready", seconds)


def wait_for_start(calls: Mapping[str, Sequence[Any]], deadline_seconds: float, progress: Progress) -> None:
    """Wait for actors that everything else needs."""
    Starting(calls, deadline_seconds, progress).wait()
