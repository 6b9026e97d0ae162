"""Rollout workers that come and go: who starts, who is ready, who has to leave. Work is `rollout_pool`'s."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.cluster import cluster, placement, processes
from actors.rollout.fleet import Member, State
from airls_ray.config.schema import FailureConfig
from airls_ray.errors import RunError, UserError

_LOOK_SECONDS = 1.0
"""Between two looks at nodes and at workers without room."""
_STEP_SECONDS = 0.02
"""Between two steps: the pool asks after every share."""
_BACKOFF_LIMIT = 15.0
_DOUBLINGS = 16


@dataclass(frozen=True)
class FleetEvents:
    """What the fleet tells, and whom it asks."""

    say: Callable[[str], None] = lambda text: None
    """Prints a line."""
    started: Callable[[str, float], None] = lambda name, seconds: None
    """A worker has loaded its model in so many seconds."""
    wanted: Callable[[], int | None] = lambda: None
    """The number of workers that somebody asks for, or None."""
    changed: Callable[[dict[str, int]], None] = lambda counts: None
    """There are so many workers by state now."""


@dataclass(frozen=True)
class Launch:
    """How a worker is started."""

    bundle: dict[str, float]
    """What it asks of Ray."""
    actor: Callable[[str, Callable[[], Any] | None], Any]
    """Name, and what reserves its room, to handle; its `start` is called next."""


class ElasticFleet:
    """Between `minimum` and `maximum` workers, each in a placement group of its own.

    All work happens in `step`, which returns at once. A worker that joins gets the current weights before it
    is ready. One whose node drains finishes its share and goes; one that dies is replaced, after a wait that
    doubles while nothing succeeds.
    """

    def __init__(
        self,
        launch: Launch,
        minimum: int,
        maximum: int,
        failures: FailureConfig,
        *,
        start_seconds: float,
        events: FleetEvents | None = None,
        joins_at_sync: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without any worker; the first `step` asks for all.

        Args:
            launch: how a worker is started.
            minimum: workers without which there is no use to go on.
            maximum: workers that are asked for, unless `events.wanted` says fewer.
            failures: probes, waits, and how many deaths are too many.
            start_seconds: longest time from room on a node to the loaded model.
            events: whom to tell.
            joins_at_sync: after the first `admit` newcomers wait for the next one (NCCL: weights come to all
                at once).
            clock: seconds.
        """
        self._launch, self._failures = launch, failures
        self.minimum, self.maximum, self.target = minimum, maximum, maximum
        self._events = events or FleetEvents()
        self._start_seconds, self._say, self._clock = start_seconds, self._events.say, clock
        self._joins_at_sync = joins_at_sync
        self.members: list[Member] = []
        self._weights: Any = None
        self._version = 0
        self._started = 0
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self._looked = self._stepped = float("-inf")
        self._node_seen: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self.deaths = 0

    @property
    def ready(self) -> Sequence[Member]:
        """See `Fleet`."""
        return [member for member in self.members if member.state == "ready"]

    @property
    def size(self) -> int:
        """See `Fleet`."""
        return self.target

    @property
    def expecting(self) -> bool:
        """See `Fleet`: whoever is missing is being brought, or waits for a node."""
        return True

    def counts(self) -> dict[str, int]:
        """See `Fleet`."""
        states: tuple[State, ...] = ("waiting", "loading", "syncing", "ready", "draining")
        return {state: sum(member.state == state for member in self.members) for state in states}

    def set_weights(self, weights: Any, version: int) -> None:
        """See `Fleet`."""
        self._weights, self._version = weights, version

    def admit(self, version: int) -> None:
        """See `Fleet`."""
        self._version = version
        for member in (*self.ready, *self.arrived):
            member.version = version
            if member.state == "syncing":
                self._begin(member)

    @property
    def arrived(self) -> Sequence[Member]:
        """See `Fleet`."""
        return [one for one in self.members if one.state == "syncing" and one.pending is None]

    # ---------------------------------------------------------------------------------- a step
    def step(self, busy: Collection[str]) -> None:
        """See `Fleet`.

        Raises:
            RunError: too many workers died in a row.
            UserError: a worker's own sentence on why it cannot start.
        """
        now = self._clock()
        if now - self._stepped < _STEP_SECONDS:
            return
        self._stepped = now
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._retarget()
            self._look_at_nodes(now)
            self._probe(now, busy)
        self._fit_target(busy)
        for member in list(self.members):
            self._advance(member, now, busy)
        if now >= self._not_before:
            self._start_missing(now)
        counts = self.counts()
        if counts != self._told:
            self._told = counts
            self._events.changed(counts)

    def _retarget(self) -> None:
        wanted = self._events.wanted()
        target = self.maximum if wanted is None else min(max(wanted, self.minimum), self.maximum)
        if target != self.target:
            self._say(f"{target} rollout workers are wanted now, {self.target} were before")
            self.target = target

    def _look_at_nodes(self, now: float) -> None:
        found = placement.nodes()
        for node in found.alive:
            self._node_seen.setdefault(node, now)
        for member in list(self.members):
            if member.state == "waiting" and member.group is not None:
                member.node = placement.node_of(member.group)
                if member.node is not None:
                    self._note(member, "room")
                    self._enter(member, "loading", member.pending)
            elif member.node is not None and member.node not in found.alive:
                self.lost(member, "its node is gone")
            elif member.node in found.draining and member.state != "draining":
                self._say(f"{member.name} leaves: its node is drained")
                self._enter(member, "draining")

    def _probe(self, now: float, busy: Collection[str]) -> None:
        """Ask idle workers for a sign of life; one that is busy answers by its share."""
        for member in self.ready:
            if member.name in busy:
                member.pending, member.probes, member.since = None, 0, now
            elif now - member.since >= self._failures.probe_seconds:
                member.probes += member.pending is not None
                member.since = now
                if member.probes >= self._failures.probe_attempts:
                    self.lost(member, f"it did not answer {member.probes} probes")
                elif member.pending is None:
                    member.pending = member.handle.version.remote()

    def _fit_target(self, busy: Collection[str]) -> None:
        """Let the youngest go when there are more than asked for; those without work first."""
        staying = [member for member in self.members if member.state != "draining"]
        if len(staying) <= self.target:
            return
        order: dict[State, int] = {"waiting": 0, "loading": 1, "syncing": 2, "ready": 3}
        # Members are in the order of their age, and sorting keeps it among equals.
        leaving = sorted(reversed(staying), key=lambda one: (order[one.state], one.name in busy))
        for member in leaving[: len(staying) - self.target]:
            self._enter(member, "draining")

    def _advance(self, member: Member, now: float, busy: Collection[str]) -> None:
        if member.state == "draining":
            if member.name not in busy:
                self._remove(member)
            return
        if member.pending is None:
            return
        if not cluster.first_ready([member.pending], 0.0):
            if member.state in ("loading", "syncing") and now - member.since > self._start_seconds:
                self.lost(member, f"it was not ready within {self._start_seconds:g} s")
            return
        ref, member.pending = member.pending, None
        try:
            result = cluster.fetch(ref, self._start_seconds, f"starting {member.name}")
        except cluster.ACTOR_FAILURES as error:
            self.lost(member, cluster.sentence(error))
            return
        except UserError:  # its own sentence on why it cannot start
            self._remove(member)
            raise
        if member.state == "ready":  # it answered a probe
            member.probes, member.since = 0, now
            return
        if member.state != "syncing":
            self._events.started(member.name, float(result))
        self._take_in(member, now)

    def _take_in(self, member: Member, now: float) -> None:
        """Bring the current weights to a newcomer, or let it begin if it has them."""
        if self._joins_at_sync and self._version and member.version is None:
            self._enter(member, "syncing")  # until `admit`
        elif self._weights is not None and member.version != self._version:
            member.version = self._version
            self._enter(member, "syncing", member.handle.update_weights.remote(self._weights))
        else:
            self._begin(member)

    def _begin(self, member: Member) -> None:
        self._enter(member, "ready")
        if member.node is None and member.group is not None:
            member.node = placement.node_of(member.group)
        if member.node is not None:
            self._note(member, "ready")

    def _start_missing(self, now: float) -> None:
        staying = sum(member.state != "draining" for member in self.members)
        for _ in range(self.target - staying):
            name = f"rollout-{self._started}"
            self._started += 1
            handle = self._launch.actor(name, partial(placement.reserve, self._launch.bundle, name))
            self.members.append(
                Member(
                    name, handle, "waiting", handle.room,
                    pending=handle.start.remote(), since=now, asked=now,
                )
            )  # fmt: skip

    def _enter(self, member: Member, state: State, pending: Any = None) -> None:
        member.state, member.pending, member.since, member.probes = state, pending, self._clock(), 0

    # ------------------------------------------------------------------------------ who goes
    def lost(self, member: Member, why: str) -> None:
        """See `Fleet`.

        Raises:
            RunError: too many in a row.
        """
        if member not in self.members:
            return
        self.deaths += 1
        now = self._clock()
        self._remove(member)
        if now >= self._not_before:  # else it belongs to the same incident: a node goes with all its workers
            # Before the error: a service outlives it, and goes on as soon as a replacement is there.
            wait = self._failures.backoff_seconds * 2.0 ** min(self._failed_in_a_row, _DOUBLINGS)
            self._not_before = now + min(wait, _BACKOFF_LIMIT)
            self._failed_in_a_row += 1
            if self._failed_in_a_row > self._failures.worker_failures:
                raise RunError(
                    f"rollout workers died {self._failed_in_a_row} times in a row and none finished a "
                    f"share; the last one, {member.name}: {why}; look into its log, or raise "
                    "failures.worker_failures"
                )
        self._say(f"{member.name} is lost and will be replaced: {why}")

    def _remove(self, member: Member) -> None:
        self.members = [one for one in self.members if one is not member]
        processes.kill(member.handle)

    def follow(self, events: FleetEvents) -> None:
        """Tell others from now on; in another process, whose clock may be another, times begin anew."""
        self._events, self._say = events, events.say
        self._looked = self._stepped = float("-inf")
        self._not_before = 0.0
        self._node_seen.clear()
        for member in self.members:
            member.since = self._clock()

    def delivered(self, member: Member) -> None:
        """See `Fleet`."""
        self._failed_in_a_row = 0
        if "first rollout" not in member.facts and member.node is not None:
            self._note(member, "first rollout")
            if self._version:  # it joined a run that was under way
                facts = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in member.facts.items())
                is_new = self._node_seen.get(member.node, member.asked) > member.asked
                begin = "its node came up" if is_new else "it was asked for"
                self._say(f"{member.name} has joined; since {begin}: {facts}")

    def _note(self, member: Member, what: str) -> None:
        """Keep how long something took: its node may have been there long before it was asked for."""
        now = self._clock()
        seen = now if member.node is None else self._node_seen.setdefault(member.node, now)
        member.facts[what] = now - max(seen, member.asked)

    def close(self) -> None:
        """End all workers and give their room back."""
        for member in self.members:
            (processes.end if member.state == "ready" else processes.kill)(member.handle)
        self.members = []
