"""Actors as the loop sees them: handles with one verb a stage, references in and references out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from actors.cluster import cluster, processes
from actors.cluster.cluster import Refs
from actors.verify.verifier_handle import ask_again


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
        refs = self.start(call, *arguments)
        return cluster.fetch_together(refs, self.deadline, f"{self.name} ({call})", refs)[0]

    def wait(self, refs: Refs) -> Refs:
        """Wait until a stage has finished, so that its seconds are its own, and pass its references on.

        Whoever reads them then waits for a transfer alone, and not for a computation (`cluster.resolve`).
        """
        cluster.fetch_together(refs, self.deadline, self.name, refs)
        return refs

    def save(self, model: str, state: str) -> None:
        """Write the model in Hugging Face format and the state that a resume needs."""
        self.finish("save", model, state)


class PolicyGroup(LearnerGroup):
    """The policy learner."""

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> Refs:
        """Log-probabilities of the problems' traces under the current policy."""
        return self.wait(self.start("trace_log_probs", problems, iteration))

    def rollout_log_probs(self, rollouts: Refs) -> Refs:
        """Log-probabilities of rollouts under the current policy, which need not be the one that sampled."""
        return self.wait(self.start("rollout_log_probs", rollouts))

    def replay_log_probs(self, tables: Refs) -> Refs:
        """Log-probabilities of replayed rollouts and their traces under the current policy."""
        return self.wait(self.start("replay_log_probs", tables))

    def update(
        self, problems: pa.Table, rollouts: Refs, grades: Any, scores: Refs, reference: Refs, version: int
    ) -> dict[str, float]:
        """One iteration's optimiser updates; the weights are then those of `version`."""
        metrics: dict[str, float] = self.finish(
            "update", problems, rollouts, [grades], scores, reference, version
        )
        return metrics

    def export(self) -> Any:
        """Reference to all weights in one buffer (rank 0's; sharded ranks gather)."""
        refs = self.start("export_weights")
        if others := refs[1:]:  # a death among them fails rank 0, too, which is not waited for here
            cluster.fetch_together(others, self.deadline, f"{self.name} (export_weights)", refs)
        return refs[0]


@dataclass(frozen=True)
class Lesson:
    """What an iteration teaches the PRM."""

    problems: pa.Table
    """PROBLEMS."""
    rollouts: Refs
    grades: Any
    """Reference to GRADES."""
    reference: Refs
    """Log-probabilities under the reference model, where something uses them."""
    iteration: int
    """Number of the iteration, warm-up included."""
    current: Sequence[Any] = ()
    """Log-probabilities of the rollouts under the policy as it is now, where an older one sampled them."""


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

    def learn(self, lesson: Lesson) -> dict[str, float]:
        """Update the PRM; returns its metrics."""
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
        self._restarting = threading.Lock()
        super().__init__("reference server", [], deadline_seconds)
        self._replace(self.ranks)

    def _replace(self, lost: list[Any]) -> None:
        with self._restarting:
            if self.ranks is lost:  # else another thread (the grader's, the loop's) has found out before
                for actor in lost:
                    processes.kill(actor)
                self.ranks = [self._start_actor()]
                self.starting = self.ranks[0].start.remote()

    def log_probs(self, rollouts: Refs) -> Refs:
        """Log-probabilities of the rollouts under the reference model."""
        return self._ask("log_probs", rollouts)

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> Refs:
        """Log-probabilities of the problems' traces."""
        return self._ask("trace_log_probs", problems, iteration)

    def replay_log_probs(self, tables: Refs) -> Refs:
        """Log-probabilities of replayed rollouts and their traces."""
        return self._ask("replay_log_probs", tables)

    def _ask(self, call: str, *arguments: Any) -> Refs:
        def ask(ranks: list[Any]) -> Refs:
            return self.wait([getattr(rank, call).remote(*arguments) for rank in ranks])

        return ask_again(self._attempts, lambda: self.ranks, self._replace, ask)

    def close(self) -> None:
        """End the actor, once: its process may have another object afterwards."""
        while self.ranks:
            processes.end(self.ranks.pop())


class PRMScorer(LearnerGroup):
    """A PRM that only scores; in the loop, a frozen one."""

    def __init__(self, ranks: Sequence[Any], deadline_seconds: float) -> None:
        """`ranks`: PRM actors that are started."""
        super().__init__("PRM", ranks, deadline_seconds)

    def learn(self, lesson: Lesson) -> dict[str, float]:
        """Nothing learns."""
        return {}

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """References to parts of schema STEP_SCORES."""
        return self.wait(self.start("score", rollouts, [], current))


class ReferencedScorer(PRMScorer):
    """A teacher whose rewards are made of the reference model's log-probabilities, too."""

    def __init__(self, ranks: Sequence[Any], reference: ReferenceGroup, deadline_seconds: float) -> None:
        """`ranks`: PRM actors that are started."""
        super().__init__(ranks, deadline_seconds)
        self._reference = reference

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """As the base class, against the reference model."""
        base = self._reference.log_probs(rollouts) if reference is None else reference
        return self.wait(self.start("score", rollouts, base, current))


class PRMGroup(PRMScorer):
    """The PRM learner together with the policy that it is told apart from."""

    def __init__(
        self, ranks: Sequence[Any], policy: PolicyGroup, traces: bool, replay: bool, deadline_seconds: float
    ) -> None:
        """`traces`: whether traces join the batch; `replay`: whether old rollouts do (their log-probabilities
        are recomputed)."""
        super().__init__(ranks, deadline_seconds)
        self._policy = policy
        self._traces = traces
        self._replay = replay

    def learn(self, lesson: Lesson) -> dict[str, float]:
        """See `PRMPart.learn`."""
        traces = self._policy.trace_log_probs(lesson.problems, lesson.iteration) if self._traces else []
        replay = self._policy.replay_log_probs(self._drawn(lesson)) if self._replay else []
        return self._update(lesson, traces, replay, lesson.current)

    def _drawn(self, lesson: Lesson) -> Refs:
        """Reference to the old rollouts of this iteration; every rank draws and keeps them."""
        return [self.start("draw_replay", lesson.iteration, lesson.rollouts, [lesson.grades])[0]]

    def _update(self, lesson: Lesson, traces: Refs, replay: Refs, base: Sequence[Any]) -> dict[str, float]:
        metrics: dict[str, float] = self.finish(
            "update",
            lesson.problems,
            lesson.rollouts,
            [lesson.grades],
            traces,
            replay,
            lesson.iteration,
            base,
        )
        return metrics


class ImplicitPRMGroup(PRMGroup):
    """A PRM learner whose values are log-ratios to the reference model, as that of PRIME."""

    def __init__(
        self,
        ranks: Sequence[Any],
        reference: ReferenceGroup,
        traces: bool,
        replay: bool,
        deadline_seconds: float,
    ) -> None:
        """`traces`, `replay`: as for the base class."""
        PRMScorer.__init__(self, ranks, deadline_seconds)
        self._reference = reference
        self._traces = traces
        self._replay = replay

    def learn(self, lesson: Lesson) -> dict[str, float]:
        """See `PRMPart.learn`."""
        traces = self._reference.trace_log_probs(lesson.problems, lesson.iteration) if self._traces else []
        replay = self._reference.replay_log_probs(self._drawn(lesson)) if self._replay else []
        return self._update(lesson, traces, replay, lesson.reference)

    def score(self, rollouts: Refs, reference: Refs | None = None, current: Sequence[Any] = ()) -> Refs:
        """As the base class, against the reference model."""
        base = self._reference.log_probs(rollouts) if reference is None else reference
        return self.wait(self.start("score", rollouts, base, current))


class NoPRM:
    """Stands where a method has no PRM."""

    def learn(self, lesson: Lesson) -> dict[str, float]:
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
