"""What an iteration is made of: the problems, and handles of everything that works on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.cluster import cluster
from actors.cluster.starting import Starting
from actors.learn.groups import NoPRM, NoReference, PolicyGroup, PRMPart, ReferenceGroup
from actors.rollout.rollout_pool import RolloutPool
from actors.train.weight_sync import NCCLWeightSync, WeightSync
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.data.problems import ProblemStream


@dataclass(frozen=True)
class Parts:
    """What an iteration is made of."""

    problems: ProblemStream
    pool: RolloutPool
    verifier: VerifierHandle
    reference: ReferenceGroup | NoReference
    prm: PRMPart | NoPRM
    policy: PolicyGroup
    sync: WeightSync | NCCLWeightSync
    learners: tuple[Any, ...] = ()
    starting: Starting | None = None
    """The learners, which may still be coming up when sampling begins."""
    held_out: pa.Table | None = None
    """PROBLEMS of the evaluation during training, where there is one."""

    def wait_for_learners(self) -> None:
        """Return when the learners are up.

        Raises:
            UserError: one of them cannot start.
        """
        if self.starting is not None:
            self.starting.wait()

    def close(self) -> None:
        """End the verifier's children and all actors."""
        self.verifier.close()
        self.reference.close()
        self.pool.fleet.close()
        for actor in self.learners:
            cluster.kill(actor)
