"""The training loop, from top to bottom.

    problem sampler -> problems -> rollout pool -> rollouts -> verifier -> outcomes
             -> reference server -> reference log-probabilities   (where something uses them)
             -> PRM learner: update, then score -> step rewards   (where the method has a PRM)
             -> policy learner: credit and update -> weight sync -> rollout pool
             -> held-out problems -> rollout pool -> verifier, PRM     (every `train.evaluate_every`)

A method is data (`config.method`, `config.prm`): nothing here asks for its name. The driver holds
references; its memory does not grow with the run.
"""

from __future__ import annotations

from actors.cluster.cluster import Refs
from actors.learn.groups import Lesson, NoPRM, PRMPart
from actors.rollout.sampling import training_request
from actors.train.evaluate import evaluate_now
from actors.train.gathering import gather
from actors.train.parts import Parts, ask_outcomes, tell_outcomes
from actors.train.tracking import LoopState, Stopwatch, Tracker
from airls_ray.config.schema import Config


def train(parts: Parts, config: Config, state: LoopState, tracker: Tracker) -> LoopState:
    """Run the iterations from `state` to the end and return the last state.

    Raises:
        ProcessLost: a learner or the PRM died or hung (see `actors.train.recovery`); others are replaced
            in place.
    """
    while not tracker.over(state):
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
    problems, rollouts, grades, reference = gather(parts, config, state.iteration, request, clock)
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
            metrics |= parts.policy.update(problems, rollouts, grades, scores, reference, version)
        with clock("sync"):
            parts.sync.push(version)
    if config.evaluates_after(state.iteration + 1):
        with clock("evaluation"):
            metrics |= evaluate_now(parts, config, parts.pool)
            parts.pool.forget_prefixes()  # the next iteration finds the engines as after the sync
    with clock("measure"):
        tell_outcomes(parts, state.iteration, ask_outcomes(parts, rollouts, grades))
        metrics |= parts.verifier.call("summarise", rollouts, grades)
        metrics |= parts.verifier.call("measure", rollouts, grades, scores)
    if config.train.refill_rounds:
        metrics["groups/sampled"] = float(problems.num_rows)
    return tracker.record(
        state.advanced(version, parts.problems.position, metrics["rollout/response_tokens"]),
        metrics | parts.pool.take_metrics() | clock.metrics(),
        phase="warmup" if warmup else "train",
        rollouts=rollouts,
        grades=grades,
        parts=parts,
        scores=scores,
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
