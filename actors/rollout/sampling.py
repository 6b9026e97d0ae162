"""The rollouts of one iteration: all groups, or what `failures` says where some fail again and again."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from airls_ray.config.schema import Config, FailureConfig
from airls_ray.data.problems import replace_rows
from airls_ray.errors import RunError
from airls_ray.truncation import Truncation

_WAIT_SECONDS = 0.5


class MoreProblems(Protocol):
    """Whatever has problems in the place of others."""

    def take(self, count: int) -> pa.Table:
        """Return the next ones (schema PROBLEMS)."""
        ...


def training_request(config: Config, iteration: int) -> RolloutRequest:
    """How the rollouts of an iteration are sampled; their seeds depend on nothing else."""
    return RolloutRequest(
        samples=config.train.rollouts_per_problem,
        temperature=config.rollout.temperature,
        seed=config.seed,
        seed_path=("train", iteration),
        truncation=Truncation.of(config.rollout),
    )


class IterationSampling:
    """Submitted when it is made; `advance` the pool until it is `finished`."""

    def __init__(
        self,
        pool: RolloutPool,
        stream: MoreProblems,
        problems: pa.Table,
        request: RolloutRequest,
        failures: FailureConfig,
    ) -> None:
        """Ask for rollouts of `problems` (schema PROBLEMS); `stream` gives those that replace some."""
        self._pool, self._stream, self._failures, self._request = pool, stream, failures, request
        self._problems = problems
        self._may_replace = failures.dropped == "replace"
        self._parts: list[tuple[list[int], Any]] = []
        self._dropped: list[int] = []
        self._job = pool.start_sampling(problems, request)

    def finished(self) -> bool:
        """Whether all groups are there or given up; what was dropped may begin again with other problems."""
        if not self._job.finished:
            return False
        self._pool.close(self._job)
        self._parts += self._job.in_order()
        self._dropped = sorted(self._job.dropped)
        if not (self._dropped and self._may_replace):
            return True
        self._may_replace = False
        self._problems = replace_rows(self._problems, self._dropped, self._stream.take(len(self._dropped)))
        self._job = self._pool.start_sampling(self._problems, self._request, rows=self._dropped)
        return False

    def result(self, *, adds: bool = False) -> tuple[pa.Table, list[Any]]:
        """The problems that have rollouts, and their references in group order (a group is a row's number).

        `adds`: to an iteration that has enough groups without these, so that any number will do.

        Raises:
            RunError: fewer than `failures.smallest_share` have any.
        """
        count = self._problems.num_rows
        kept = sorted(set(range(count)) - set(self._dropped))
        if not adds and len(kept) < self._failures.smallest_share * count:
            raise RunError(
                f"{len(self._dropped)} of {count} groups failed {self._failures.attempts} times each, which "
                f"leaves less than failures.smallest_share ({self._failures.smallest_share:g}): look into "
                "the workers' logs; --resume goes on from the last checkpoint"
            )
        problems = self._problems.take(pa.array(kept, pa.int64())) if self._dropped else self._problems
        return problems, [ref for _, ref in sorted(self._parts, key=lambda part: part[0][0])]


def sample_all(
    sampling: IterationSampling, pool: RolloutPool, *, adds: bool = False
) -> tuple[pa.Table, list[Any]]:
    """Work until it is finished; returns its result."""
    while not sampling.finished():
        pool.advance(_WAIT_SECONDS)
    return sampling.result(adds=adds)
