"""What an iteration is made of: the problems, and handles of everything that works on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.cluster import processes
from actors.cluster.cluster import Refs
from actors.cluster.starting import Starting
from actors.learn.groups import NoPRM, NoReference, PolicyGroup, PRMPart, ReferenceGroup
from actors.rollout.rollout_pool import RolloutPool
from actors.train.weight_sync import NCCLWeightSync, WeightSync
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.data.training_problems import TrainingProblems


@dataclass(frozen=True)
class Parts:
    """What an iteration is made of."""

    problems: TrainingProblems
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

    @property
    def kernels(self) -> dict[str, dict[str, str]]:
        """Attention and layout of every model, by the names of their actors, once the learners are up."""
        return self.starting.kernels if self.starting is not None else {}

    def close(self) -> None:
        """End the verifier's children and all actors."""
        self.verifier.close()
        self.reference.close()
        self.pool.fleet.close()
        for actor in self.learners:
            processes.end(actor)


def ask_outcomes(parts: Parts, rollouts: Refs, grades: Any) -> Any:
    """Begin to ask for the outcomes of an iteration, where the sampler of problems wants them."""
    if not parts.problems.learns:
        return None
    return parts.verifier.start("outcomes_by_problem", rollouts, grades)


def tell_outcomes(parts: Parts, iteration: int, asked: Any) -> None:
    """Tell the sampler of problems what `ask_outcomes` has asked for; `iteration`: its number, from 0.

    Raises:
        ProcessLost: the verifier is lost again and again.
    """
    if asked is not None:
        parts.problems.seen(iteration, parts.verifier.finish(asked))
