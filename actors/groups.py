"""Actors as the loop sees them: handles with one verb a stage, references in and references out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from actors import cluster
from actors.rollout_pool import RolloutPool
from airls_ray.errors import ProcessLost, RunError

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

    def rollout_log_probs(self, rollouts: Refs) -> Refs:
        """Log-probabilities of rollouts under the current policy, which need not be the one that sampled."""
        return self.wait(self.start("rollout_log_probs", rollouts))

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

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """References to parts of schema STEP_SCORES; none where there is no PRM.

        `reference`: log-probabilities under the reference model, where they are known already; `current`:
        those under the policy as it is now, where the rollouts are older (else they have them).
        """
        ...


class PRMPart(Scorer, Protocol):
    """The PRM's place in the loop."""

    def learn(
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        reference: Refs,
        iteration: int,
        current: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Update the PRM; returns its metrics. `current`: see `Scorer.score`."""
        ...

    def save(self, model: str, state: str) -> None:
        """Write model and state."""
        ...


class ReferenceGroup(LearnerGroup):
    """The reference server. It never learns, so one that dies is started again and asked again."""

    def __init__(self, start: Callable[[], Any], deadline_seconds: float, attempts: int) -> None:
        """`start`: makes the actor; `attempts`: times that a call is tried."""
        self._start_actor = start
        self._attempts = attempts
        super().__init__("reference server", [], deadline_seconds)
        self._restart()

    def _restart(self) -> None:
        self.close()
        self.ranks = [self._start_actor()]
        self.starting = self.ranks[0].start.remote()

    def log_probs(self, rollouts: Refs) -> Refs:
        """Log-probabilities of the rollouts under the reference model."""
        return self._ask("log_probs", rollouts)

    def replay_log_probs(self, tables: Refs) -> Refs:
        """Log-probabilities of replayed rollouts and their traces."""
        return self._ask("replay_log_probs", tables)

    def _ask(self, call: str, tables: Refs) -> Refs:
        return ask_again(self._attempts, self._restart, lambda: self.wait(self.start(call, tables)))

    def close(self) -> None:
        """End the actor."""
        for actor in self.ranks:
            cluster.kill(actor)


class PRMScorer(LearnerGroup):
    """A PRM that only scores; in the loop, a frozen one."""

    def __init__(self, ranks: Sequence[Any], deadline_seconds: float) -> None:
        """`ranks`: PRM actors that are started."""
        super().__init__("PRM", ranks, deadline_seconds)

    def learn(
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        reference: Refs,
        iteration: int,
        current: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Nothing learns."""
        return {}

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """References to parts of schema STEP_SCORES."""
        return self.wait(self.start("score", rollouts, [], current))


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
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        reference: Refs,
        iteration: int,
        current: Sequence[Any] = (),
    ) -> dict[str, float]:
        """See `PRMPart.learn`."""
        traces = self._policy.trace_log_probs(problems, iteration)
        replay: Refs = []
        if self._replay:
            replay = self._policy.replay_log_probs(self._drawn(problems, iteration))
        return self._update(problems, rollouts, grades, traces, replay, iteration, current)

    def _drawn(self, problems: pa.Table, iteration: int) -> Refs:
        """Reference to the old rollouts of this iteration; every rank draws and keeps them."""
        return [self.start("draw_replay", iteration, problems.num_rows)[0]]

    def _update(
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        base: Refs,
        replay: Refs,
        iteration: int,
        current: Sequence[Any],
    ) -> dict[str, float]:
        metrics: dict[str, float] = self.finish(
            "update", problems, rollouts, [grades], base, replay, iteration, current
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
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        reference: Refs,
        iteration: int,
        current: Sequence[Any] = (),
    ) -> dict[str, float]:
        """See `PRMPart.learn`."""
        replay: Refs = []
        if self._replay:
            replay = self._reference.replay_log_probs(self._drawn(problems, iteration))
        return self._update(problems, rollouts, grades, reference, replay, iteration, current)

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """As the base class, against the reference model."""
        base = self._reference.log_probs(rollouts) if reference is None else reference
        return self.wait(self.start("score", rollouts, base, current))


class NoPRM:
    """Stands where a method has no PRM."""

    def learn(
        self,
        problems: pa.Table,
        rollouts: Refs,
        grades: Any,
        reference: Refs,
        iteration: int,
        current: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Nothing learns."""
        return {}

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """No scores."""
        return []

    def save(self, model: str, state: str) -> None:
        """Nothing to save."""


class NoReference:
    """Stands where nothing reads reference log-probabilities."""

    def log_probs(self, rollouts: Refs) -> Refs:
        """No references."""
        return []

    def close(self) -> None:
        """Nothing to end."""


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

    def grade(self, rollouts: Refs, problems: pa.Table) -> Any:
        """Reference to the grades (schema GRADES)."""

        def ask() -> Any:
            ref = self._handle.grade.remote(rollouts, problems)
            cluster.wait_done(ref, self._deadline, "grading")
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
        cluster.kill(self._handle)
        assert self._make is not None
        self._handle = self._make()

    def close(self) -> None:
        """End the child processes (a verifier that is busy or gone is ended with its process)."""
        try:
            cluster.fetch(self._handle.close.remote(), _CLOSE_SECONDS, "closing the verifier")
        except RunError:
            logging.getLogger(__name__).warning("the verifier did not close in time")
        cluster.kill(self._handle)


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

    def push(self, version: int) -> None:
        """Broadcast the current weights; when workers have come or gone, all meet anew first."""
        fleet = self._pool.fleet
        workers = [member.handle for member in (*fleet.ready, *fleet.arrived)]
        if workers != self._connected:
            self._policy.finish("open_nccl", workers, self._ranks_per_engine)
            self._connected = workers
        self._policy.finish("send_nccl")
        fleet.admit(version)


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
