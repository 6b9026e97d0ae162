"""The asynchronous loop: the learners train on one iteration while the workers sample the next ones.

    rollout stream (its own thread): problem sampler -> rollout pool -> verifier -> reference server
             -> log-probabilities under the policy as it is now    (the rollouts may be older)
             -> PRM learner: update, then score -> policy learner: update -> weights to the stream

The same parts as `actors/train/loop.py`. Rollouts are at most `train.max_staleness` policy updates old; the
policy's loss weighs their tokens by truncated importance weights (`method.importance_cap`).
"""

from __future__ import annotations

from actors.learn.groups import Lesson
from actors.train.evaluate import evaluate_now
from actors.train.loop import learn_and_score
from actors.train.parts import Parts, ask_outcomes, tell_outcomes
from actors.train.rollout_stream import RolloutStream
from actors.train.tracking import LoopState, Stopwatch, Tracker
from airls_ray.config.schema import Config


def train_async(parts: Parts, config: Config, state: LoopState, tracker: Tracker) -> LoopState:
    """Run the iterations from `state` to the end and return the last state.

    Raises:
        ProcessLost: a learner or the PRM died or hung (see `actors.train.recovery`).
    """
    if tracker.over(state):  # a resume of a run that had ended; nothing is sampled for it
        return state
    stream = RolloutStream(
        parts.pool, parts.problems, parts.verifier, parts.reference, config, state.iteration
    )
    with stream:
        while not tracker.over(state):
            with tracker.whole(state, parts):
                state = run_iteration(parts, stream, config, state, tracker)
    return state


def run_iteration(
    parts: Parts, stream: RolloutStream, config: Config, state: LoopState, tracker: Tracker
) -> LoopState:
    """One iteration: take what the stream has, teach the PRM, teach the policy, hand the weights on."""
    clock = Stopwatch(tracker.stage)
    warmup = state.iteration < config.warmup_iterations
    with clock("wait"):
        batch = stream.take()
    rollouts, grades = batch.rollouts, batch.grades
    current = []
    if config.recomputes_log_probs:
        with clock("log_probs"):  # the PRM tells experts from the policy as it is now
            current = parts.policy.rollout_log_probs(rollouts)
    lesson = Lesson(batch.problems, rollouts, grades, batch.reference, state.iteration, current)
    metrics, scores = learn_and_score(parts.prm, lesson, config, clock)
    version = state.version
    outcomes = ask_outcomes(parts, rollouts, grades)
    measured = [
        parts.verifier.start("staleness", rollouts, version),
        parts.verifier.start("summarise", rollouts, grades),
        parts.verifier.start("measure", rollouts, grades, scores),
    ]
    if not warmup:
        version += 1
        with clock("policy_update"):
            metrics |= parts.policy.update(batch.problems, rollouts, grades, scores, batch.reference, version)
        with clock("sync"):
            stream.push(parts.policy.export(), version)
    tell_outcomes(parts, state.iteration, outcomes)  # before choices that may know of them
    stream.train_done()
    if config.evaluates_after(state.iteration + 1):
        with clock("evaluation"):  # until it is over no newer weights are pushed
            metrics |= evaluate_now(parts, config, stream)
    with clock("measure"):
        for found in measured:
            metrics |= parts.verifier.finish(found)
    times = {"time/rollout": batch.sampling_seconds, "time/grade": batch.grading_seconds}
    return tracker.record(
        state.advanced(version, batch.position, metrics["rollout/response_tokens"]),
        metrics | parts.pool.take_metrics() | stream.counts() | clock.metrics() | times,
        phase="warmup" if warmup else "train",
        rollouts=rollouts,
        grades=grades,
        parts=parts,
        scores=scores,
    )
