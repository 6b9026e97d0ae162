"""How the learner's weights reach the rollout workers, whoever they are at the time."""

from __future__ import annotations

from typing import Any

from actors.learn.groups import PolicyGroup
from actors.rollout.rollout_pool import RolloutPool


class WeightSync:
    """Brings the learner's weights to the rollout workers."""

    def __init__(self, policy: PolicyGroup, pool: RolloutPool) -> None:
        """Over the object store: one buffer, put once."""
        self._policy = policy
        self._pool = pool

    def push(self, version: int) -> None:
        """Give the workers the current weights, those of `version`; whoever joins later gets them, too."""
        self._pool.update_weights(self._policy.export(), version)


class NCCLWeightSync:
    """The same over NCCL: the learner broadcasts from GPU to GPU. Not run on this project's CPU machines."""

    def __init__(self, policy: PolicyGroup, pool: RolloutPool, ranks_per_engine: int) -> None:
        """`ranks_per_engine`: GPUs of a rollout worker."""
        self._policy = policy
        self._pool = pool
        self._ranks_per_engine = ranks_per_engine
        self._connected: list[Any] = []
        self._version = 0
        # Else a run whose workers are all new waits for ever: they for a sync, and the sync for rollouts.
        # While the synchronous loop samples, the learner has the weights of the last push.
        pool.sync_again = lambda: self.push(self._version)

    def push(self, version: int) -> None:
        """Broadcast the current weights; when workers have come or gone, all meet anew first.

        Whoever joins later has the weights that it started from, and waits for the next one.
        """
        self._version = version
        fleet = self._pool.fleet
        workers = [member.handle for member in (*fleet.ready, *fleet.arrived)]
        if workers != self._connected:
            self._policy.finish("open_nccl", workers, self._ranks_per_engine)
            self._connected = workers
        self._policy.finish("send_nccl")
        fleet.admit(version)
