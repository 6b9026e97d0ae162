"""The training loop, from top to bottom.

    problems -> rollout pool -> rollouts -> verifier -> outcomes
             -> reference server -> reference log-probabilities   (where something uses them)
             -> PRM learner: update, then score -> step rewards   (where the method has a PRM)
             -> policy learner: credit and update -> weight sync -> rollout pool

A method is data (`config.method`, `config.prm`): nothing here asks for its name. The driver holds
references; its memory does not grow with the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors import cluster
from actors.cluster import Refs
from actors.groups import Lesson, NoPRM, NoReference, PolicyGroup, PRMPart, ReferenceGroup
from actors.rollout_pool import RolloutPool
from actors.rollout_worker import RolloutRequest
from actors.sampling import IterationSampling, sample_all, training_request
from actors.starting import Starting
from actors.tracking import LoopState, Stopwatch, Tracker
from actors.verifier_handle import VerifierHandle
from actors.weight_sync import NCCLWeightSync, WeightSync
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import ProcessLost


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


def train(parts: Parts, config: Config, state: LoopState, tracker: Tracker) -> LoopState:
    """Run the iterations from `state` to the end and return the last state.

    Raises:
        ProcessLost: a learner or the PRM died or hung (see `actors.recovery`); others are replaced in place.
    """
    while state.iteration < config.iterations:
        with tracker.whole(state, parts):
            state = run_iteration(
                parts, config, state, tracker, warmup=state.iteration < config.warmup_iterations
            )
    return state


def run_iteration(
    parts: Parts, config: Config, state: LoopState, tracker: Tracker, *, warmup: bool
) -> LoopState:
    """One iteration: sample, grade, teach the PRM, teach the policy (not in the warm-up), sync."""
    clock = Stopwatch(tracker.stage)
    request = training_request(config, state.iteration)
    problems, rollouts, grades, reference = gather(parts, config, request, clock)
    current = []
    if config.recomputes_log_probs:
        with clock("log_probs"):
            current = parts.policy.rollout_log_probs(rollouts)
    lesson = Lesson(problems, rollouts, grades, reference, state.iteration, current)
    metrics, scores = learn_and_score(parts.prm, lesson, config, clock)
    version = state.version
    if not warmup:
        version += 1
        with clock("policy_update"):
            metrics |= parts.policy.update(rollouts, grades, scores, reference, version)
        with clock("sync"):
            parts.sync.push(version)
    with clock("measure"):
        metrics |= parts.verifier.call("summarise", rollouts, grades)
        metrics |= parts.verifier.call("measure", rollouts, grades, scores)
    return tracker.record(
        state.advanced(version, parts.problems.position, metrics["rollout/response_tokens"]),
        metrics | parts.pool.take_metrics() | clock.metrics(),
        phase="warmup" if warmup else "train",
        rollouts=rollouts,
        grades=grades,
        parts=parts,
    )


def learn_and_score(
    prm: PRMPart | NoPRM, lesson: Lesson, config: Config, clock: Stopwatch
) -> tuple[dict[str, float], Refs]:
    """Update the PRM and score the lesson's rollouts by it, or by what it was before (`prm.score_by`)."""
    scores: Refs = []
    before = config.prm.score_by == "previous"
    if before:
        with clock("prm_score"):
            scores = prm.score(lesson.rollouts, lesson.reference, lesson.current)
    with clock("prm_update"):
        metrics = prm.learn(lesson)
    if not before:
        with clock("prm_score"):
            scores = prm.score(lesson.rollouts, lesson.reference, lesson.current)
    return metrics, scores


def gather(
    parts: Parts, config: Config, request: RolloutRequest, clock: Stopwatch
) -> tuple[pa.Table, Refs, Any, Refs]:
    """Draw problems, sample, grade, ask the reference; nothing learns here, so what is lost is done again.

    Returns:
        PROBLEMS, references to ROLLOUTS, to GRADES and to the reference's log-probabilities.
    """
    problems = parts.problems.take(config.train.problems_per_iteration)
    for attempt in range(1, config.failures.attempts + 1):
        with clock("rollout"):
            sampling = IterationSampling(parts.pool, parts.problems, problems, request, config.failures)
            problems, rollouts = sample_all(sampling, parts.pool)
        try:
            with clock("grade"):
                grades = parts.verifier.grade(rollouts, problems)
            with clock("reference"):
                return problems, rollouts, grades, parts.reference.log_probs(rollouts)
        except ProcessLost:  # such as rollouts that were on a node that is gone
            if attempt == config.failures.attempts:
                raise
    raise AssertionError("unreachable")
