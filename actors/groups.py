"""Actors as the loop sees them: handles with one verb a stage, references in and references out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from actors import cluster
from actors.rollout_pool import RolloutPool
from airls_ray.errors import RunError

_CLOSE_SECONDS = 5.0

Refs = list[Any]
"""References to tables, one a share or a rank; the driver never holds the tokens behind them."""


class LearnerGroup:
    """All ranks of a learner; every call goes to every rank with the same arguments."""

    def __init__(self, name: str, ranks: Sequence[Any], deadline_seconds: float) -> None:
        """`ranks`: actor handles by rank; `deadline_seconds`: longest time for one call."""
        self.name = name
        self.ranks = list(ranks)
        self.deadline = deadline_seconds

    def start(self, call: str, *arguments: Any) -> Refs:
        """Call all ranks and return the references at once."""
        return [getattr(rank, call).remote(*arguments) for rank in self.ranks]

    def finish(self, call: str, *arguments: Any) -> Any:
        """Call all ranks, wait for all, return what rank 0 returns."""
        return cluster.fetch(self.start(call, *arguments), self.deadline, f"{self.name} ({call})")[0]

    def wait(self, refs: Refs) -> Refs:
        """Wait until a stage has finished, so that its seconds are its own, and pass its references on."""
        cluster.wait_done(refs, self.deadline, self.name)
        return refs

    def save(self, model: str, state: str) -> None:
        """Write the model in Hugging Face format and the state that a resume needs."""
        self.finish("save", model, state)


class PolicyGroup(LearnerGroup):
    """The policy learner."""

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> Refs:
        """Log-probabilities of the problems' traces under the current policy."""
        return self.start("trace_log_probs", problems, iteration)

    def replay_log_probs(self, tables: Refs) -> Refs:
        """Log-probabilities of replayed rollouts and their traces under the current policy."""
        return self.start("replay_log_probs", tables)

    def update(
        self, rollouts: Refs, grades: Any, scores: Refs, reference: Refs, version: int
    ) -> dict[str, float]:
        """One iteration's optimiser updates; the weights are then those of `version`."""
        metrics: dict[str, float] = self.finish("update", rollouts, [grades], scores, reference, version)
        return metrics

    def export(self) -> Any:
        """Reference to all weights in one buffer (rank 0's; sharded ranks gather)."""
        return self.start("export_weights")[0]


class Scorer(Protocol):
    """Whatever scores the steps of rollouts."""

    def score(self, rollouts: Refs, reference: Refs | None = None) -> Refs:
        """References to parts of schema STEP_SCORES; none where there is no PRM.

        `reference`: log-probabilities under the reference model, where they are known already.
        """
        ...


class PRMPart(Scorer, Protocol):
    """The PRM's place in the loop."""

    def learn(
        self, problems: pa.Table, rollouts: Refs, grades: Any, reference: Refs, iteration: int
    ) -> dict[str, float]:
        """Update the PRM; returns its metrics."""
        ...

    def save(self, model: str, state: str) -> None:
        """Write model and state."""
        ...


class ReferenceGroup(LearnerGroup):
    """The reference server."""

    def log_probs(self, rollouts: Refs) -> Refs:
        """Log-probabilities of the rollouts under the reference model."""
        return self.wait(self.start("log_probs", rollouts))

    def replay_log_probs(self, tables: Refs) -> Refs:
        """Log-probabilities of replayed rollouts and their traces."""
        return self.start("replay_log_probs", tables)


class PRMScorer(LearnerGroup):
    """A PRM that only scores; in the loop, a frozen one."""

    def __init__(self, ranks: Sequence[Any], deadline_seconds: float) -> None:
        """`ranks`: PRM actors that are started."""
        super().__init__("PRM", ranks, deadline_seconds)

    def learn(
        self, problems: pa.Table, rollouts: Refs, grades: Any, reference: Refs, iteration: int
    ) -> dict[str, float]:
        """Nothing learns."""
        return {}

    def score(self, rollouts: Refs, reference: Refs | None = None) -> Refs:
        """References to parts of schema STEP_SCORES."""
        return self.wait(self.start("score", rollouts, []))


class PRMGroup(PRMScorer):
    """The PRM learner together with the policy that it is told apart from."""

    def __init__(
        self, ranks: Sequence[Any], policy: PolicyGroup, replay: bool, deadline_seconds: float
    ) -> None:
        """`replay`: whether old rollouts join the batch (their log-probabilities are recomputed)."""
        super().__init__(ranks, deadline_seconds)
        self._policy = policy
        self._replay = replay

    def learn(
        self, problems: pa.Table, rollouts: Refs, grades: Any, reference: Refs, iteration: int
    ) -> dict[str, float]:
        """See `PRMPart.learn`."""
        traces = self._policy.trace_log_probs(problems, iteration)
        replay: Refs = []
        if self._replay:
            replay = self._policy.replay_log_probs(self._drawn(problems, iteration))
        return self._update(problems, rollouts, grades, traces, replay, iteration)

    def _drawn(self, problems: pa.Table, iteration: int) -> Refs:
        """Reference to the old rollouts of this iteration; every rank draws and keeps them."""
        return [self.start("draw_replay", iteration, problems.num_rows)[0]]

    def _update(
        self, problems: pa.Table, rollouts: Refs, grades: Any, base: Refs, replay: Refs, iteration: int
    ) -> dict[str, float]:
        metrics: dict[str, float] = self.finish(
            "update", problems, rollouts, [grades], base, replay, iteration
        )
        return metrics


class ImplicitPRMGroup(PRMGroup):
    """The PRM learner of PRIME: its values are log-ratios to the reference model."""

    def __init__(
        self, ranks: Sequence[Any], reference: ReferenceGroup, replay: bool, deadline_seconds: float
    ) -> None:
        """`replay`: as for the base class."""
        PRMScorer.__init__(self, ranks, deadline_seconds)
        self._reference = reference
        self._replay = replay

    def learn(
        self, problems: pa.Table, rollouts: Refs, grades: Any, reference: Refs, iteration: int
    ) -> dict[str, float]:
        """See `PRMPart.learn`."""
        replay: Refs = []
        if self._replay:
            replay = self._reference.replay_log_probs(self._drawn(problems, iteration))
        return self._update(problems, rollouts, grades, reference, replay, iteration)

    def score(self, rollouts: Refs, reference: Refs | None = None) -> Refs:
        """As the base class, against the reference model."""
        base = self._reference.log_probs(rollouts) if reference is None else reference
        return self.wait(self.start("score", rollouts, base))


class NoPRM:
    """Stands where a method has no PRM."""

    def learn(
        self, problems: pa.Table, rollouts: Refs, grades: Any, reference: Refs, iteration: int
    ) -> dict[str, float]:
        """Nothing learns."""
        return {}

    def score(self, rollouts: Refs, reference: Refs | None = None) -> Refs:
        """No scores."""
        return []

    def save(self, model: str, state: str) -> None:
        """Nothing to save."""


class NoReference:
    """Stands where nothing reads reference log-probabilities."""

    def log_probs(self, rollouts: Refs) -> Refs:
        """No references."""
        return []


class VerifierHandle:
    """The verifier."""

    def __init__(self, handle: Any, deadline_seconds: float) -> None:
        """`handle`: the actor."""
        self._handle = handle
        self._deadline = deadline_seconds

    def grade(self, rollouts: Refs, problems: pa.Table) -> Any:
        """Reference to the grades (schema GRADES)."""
        ref = self._handle.grade.remote(rollouts, problems)
        cluster.wait_done(ref, self._deadline, "grading")
        return ref

    def call(self, method: str, *arguments: Any) -> Any:
        """Any of the verifier's measurements, waited for."""
        return cluster.fetch(
            getattr(self._handle, method).remote(*arguments), self._deadline, f"verifier ({method})"
        )

    def close(self) -> None:
        """End the child processes (a verifier that is busy or gone is ended with its process)."""
        try:
            cluster.fetch(self._handle.close.remote(), _CLOSE_SECONDS, "closing the verifier")
        except RunError:
            logging.getLogger(__name__).warning("the verifier did not close in time")


class WeightSync:
    """Brings the learner's weights to the rollout workers."""

    def __init__(self, policy: PolicyGroup, pool: RolloutPool) -> None:
        """Over the object store: one buffer, put once."""
        self._policy = policy
        self._pool = pool

    def push(self) -> None:
        """Give the workers the current weights; they then sample at the learner's version."""
        self._pool.update_weights(self._policy.export())


class NCCLWeightSync:
    """The same over NCCL: the learner broadcasts from GPU to GPU."""

    def __init__(self, policy: PolicyGroup, pool: RolloutPool, ranks_per_engine: int) -> None:
        """Rendezvous of rank 0 with all engines. Not run on this project's CPU machines."""
        self._policy = policy
        policy.finish("open_nccl", pool.workers, ranks_per_engine)

    def push(self) -> None:
        """Broadcast the current weights."""
        self._policy.finish("send_nccl")
