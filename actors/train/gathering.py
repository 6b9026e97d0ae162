"""What an iteration of the synchronous loop learns from, sampled in rounds until enough groups teach.

    problems -> rollouts -> grades -> groups that the row filters keep
        ^                                      |
        +----- as many as are still missing ---+     at most `train.refill_rounds` times

Dynamic sampling of DAPO (arXiv 2503.14476, section 3.2). A round begins when all groups of the one before are
graded, and asks for just what is missing: what is sampled depends on the seed alone, and never are there more
groups that teach than `train.problems_per_iteration`. Groups that were left out stay in the tables, so that
figures are of all that was sampled; the row filters leave them out again where something learns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from actors.cluster.cluster import Refs
from actors.rollout.rollout_worker import RolloutRequest
from actors.rollout.sampling import IterationSampling, sample_all
from actors.train.parts import Parts
from actors.train.tracking import Stopwatch
from airls_ray.config.schema import Config
from airls_ray.errors import ProcessLost


def gather(
    parts: Parts, config: Config, iteration: int, request: RolloutRequest, clock: Stopwatch
) -> tuple[pa.Table, Refs, Any, Refs]:
    """Draw problems, sample, grade, ask the reference; nothing learns here, so what is lost is done again.

    Returns:
        PROBLEMS, references to ROLLOUTS, to GRADES and to the reference's log-probabilities.
    """
    drawn = [parts.problems.choose(iteration, config.train.problems_per_iteration)]
    refills = 0 if iteration < config.warmup_iterations else config.train.refill_rounds
    for attempt in range(1, config.failures.attempts + 1):
        try:
            rollouts, grades = _rounds(parts, config, request, clock, drawn, refills)
            with clock("reference"):
                reference = parts.reference.log_probs(rollouts)
            return pa.concat_tables(drawn).combine_chunks(), rollouts, grades, reference
        except ProcessLost:  # such as rollouts that were on a node that is gone
            if attempt == config.failures.attempts:
                raise
    raise AssertionError("unreachable")


def _rounds(
    parts: Parts,
    config: Config,
    request: RolloutRequest,
    clock: Stopwatch,
    drawn: list[pa.Table],
    refills: int,
) -> tuple[Refs, Any]:
    """Sample and grade the problems of each round.

    `drawn`: PROBLEMS by round. It is filled as they are drawn, so that what is done again has the same ones;
    of a round that was sampled, those that have rollouts are left there.
    """
    wanted, found, groups = config.train.problems_per_iteration, 0, 0
    sampled: list[Refs] = []
    graded: list[Any] = []
    for number in range(refills + 1):
        if number == len(drawn):
            drawn.append(parts.problems.take(wanted - found))
        asked = _request_of(request, number, groups)
        groups += drawn[number].num_rows
        with clock("rollout"):
            sampling = IterationSampling(parts.pool, parts.problems, drawn[number], asked, config.failures)
            drawn[number], rollouts = sample_all(sampling, parts.pool, adds=number > 0)
        if not rollouts:  # all that this round asked for failed again and again
            continue
        with clock("grade"):
            grades = parts.verifier.grade(rollouts, drawn[number], learning=config.grades_more)
            sampled.append(rollouts)
            graded.append(grades)
            if number < refills:
                found += parts.verifier.call("kept_groups", rollouts, grades)
        if found >= wanted:
            break
    with clock("grade"):
        return [ref for one in sampled for ref in one], parts.verifier.join(graded)


def _request_of(request: RolloutRequest, number: int, groups: int) -> RolloutRequest:
    """That of a round: a problem that comes again in an iteration is sampled with other seeds."""
    if number == 0:
        return request
    return replace(request, seed_path=(*request.seed_path, "refill", number), first_group=groups)
