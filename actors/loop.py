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

from actors import cluster
from actors.groups import (
    NCCLWeightSync,
    NoPRM,
    NoReference,
    PolicyGroup,
    PRMPart,
    ReferenceGroup,
    VerifierHandle,
    WeightSync,
)
from actors.rollout_pool import RolloutPool
from actors.rollout_worker import RolloutRequest
from actors.tracking import LoopState, Stopwatch, Tracker
from airls_ray.config.schema import Config
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
    actors: tuple[Any, ...] = ()

    def close(self) -> None:
        """End the verifier's children and all actors."""
        self.verifier.close()
        for actor in self.actors:
            cluster.kill(actor)


def train(parts: Parts, config: Config, state: LoopState, tracker: Tracker) -> LoopState:
    """Run the iterations from `state` to the end and return the last state."""
    while state.iteration < config.iterations:
        state = run_iteration(
            parts, config, state, tracker, warmup=state.iteration < config.warmup_iterations
        )
    return state


def run_iteration(
    parts: Parts, config: Config, state: LoopState, tracker: Tracker, *, warmup: bool
) -> LoopState:
    """One iteration: sample, grade, teach the PRM, teach the policy (not in the warm-up), sync."""
    clock = Stopwatch()
    problems = parts.problems.take(config.train.problems_per_iteration)
    request = RolloutRequest(
        samples=config.train.rollouts_per_problem,
        temperature=config.rollout.temperature,
        seed=config.seed,
        seed_path=("train", state.iteration),
    )
    with clock("rollout"):
        rollouts = parts.pool.generate(problems, request)
    with clock("grade"):
        grades = parts.verifier.grade(rollouts, problems)
    with clock("reference"):
        reference = parts.reference.log_probs(rollouts)
    with clock("prm_update"):
        metrics = parts.prm.learn(problems, rollouts, grades, reference, state.iteration)
    with clock("prm_score"):
        scores = parts.prm.score(rollouts, reference)
    version = state.version
    if not warmup:
        version += 1
        with clock("policy_update"):
            metrics |= parts.policy.update(rollouts, grades, scores, reference, version)
        with clock("sync"):
            parts.sync.push()
    with clock("measure"):
        metrics |= parts.verifier.call("summarise", rollouts, grades)
        metrics |= parts.verifier.call("measure", rollouts, grades, scores)
    return tracker.record(
        state.advanced(version, parts.problems.position, metrics["rollout/response_tokens"]),
        metrics | clock.metrics(),
        phase="warmup" if warmup else "train",
        rollouts=rollouts,
        grades=grades,
        parts=parts,
    )
