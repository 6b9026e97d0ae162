"""Who the rollout workers are, as `rollout_pool` sees them; `elastic_fleet` has those that come and go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from actors.cluster import processes
from airls_ray.errors import RunError

State = Literal["waiting", "loading", "syncing", "ready", "draining"]
"""waiting: no node has room; loading: its process starts and reads the model; syncing: it takes the current
weights; ready; draining: it finishes what it has and goes."""


@dataclass
class Member:
    """One worker."""

    name: str
    handle: Any
    state: State = "ready"
    group: Any = None
    """Its placement group, if it has one of its own."""
    node: str | None = None
    pending: Any = None
    """Reference of the call that the next state waits for, or of a probe."""
    since: float = 0.0
    """When it came into its state, or its probe began."""
    version: int | None = None
    """Of the weights that were sent to it last."""
    asked: float = 0.0
    """When it was asked for."""
    probes: int = 0
    """Unanswered ones in a row."""
    facts: dict[str, float] = field(default_factory=dict)
    """Seconds after it was asked for, or its node came up if that was later: room, ready, first rollout."""


class Fleet(Protocol):
    """What the pool needs of it."""

    deaths: int
    """Workers that were lost so far."""

    def counts(self) -> dict[str, int]:
        """Members by state."""
        ...

    @property
    def ready(self) -> Sequence[Member]:
        """Those that may be given work."""
        ...

    @property
    def size(self) -> int:
        """Workers that there should be."""
        ...

    @property
    def expecting(self) -> bool:
        """Whether more may become ready."""
        ...

    def step(self, busy: Collection[str]) -> None:
        """Let time pass: take in who has come, let go who has to; `busy` names those with a share."""
        ...

    def lost(self, member: Member, why: str) -> None:
        """A member died, hung or failed: it is ended and no longer a member."""
        ...

    def set_weights(self, weights: Any, version: int) -> None:
        """The reference of the weights that newcomers get."""
        ...

    def delivered(self, member: Member) -> None:
        """A member finished a share."""
        ...

    @property
    def arrived(self) -> Sequence[Member]:
        """Those that wait for a sync that reaches all at once (NCCL)."""
        ...

    def admit(self, version: int) -> None:
        """These have got the weights of `version`."""
        ...

    def close(self) -> None:
        """End all workers that it started."""
        ...


class FixedFleet:
    """Workers that were started elsewhere; none is replaced."""

    def __init__(self, workers: Sequence[Any], nodes: Sequence[str] | None = None) -> None:
        """`workers`: started actors, at least one; `nodes`: of each, where known."""
        if not workers:
            raise ValueError("a rollout pool needs at least one worker")
        where: Sequence[str | None] = nodes or [None] * len(workers)
        self._members = [
            Member(f"rollout-{number}", handle, node=node)
            for number, (handle, node) in enumerate(zip(workers, where, strict=True))
        ]
        self.deaths = 0

    @property
    def ready(self) -> Sequence[Member]:
        """See `Fleet`."""
        return self._members

    @property
    def size(self) -> int:
        """See `Fleet`."""
        return len(self._members)

    @property
    def expecting(self) -> bool:
        """See `Fleet`."""
        return False

    def step(self, busy: Collection[str]) -> None:
        """Nothing changes by itself."""

    def lost(self, member: Member, why: str) -> None:
        """See `Fleet`."""
        self._members = [one for one in self._members if one is not member]
        self.deaths += 1
        processes.kill(member.handle)
        if not self._members:
            raise RunError(f"the last rollout worker died: {why}")

    def set_weights(self, weights: Any, version: int) -> None:
        """Nobody joins later."""

    def delivered(self, member: Member) -> None:
        """Not counted."""

    def counts(self) -> dict[str, int]:
        """See `Fleet`."""
        return {"ready": len(self._members)}

    @property
    def arrived(self) -> Sequence[Member]:
        """Nobody joins later."""
        return ()

    def admit(self, version: int) -> None:
        """Nobody joins later."""

    def close(self) -> None:
        """Whoever started the workers ends them."""
