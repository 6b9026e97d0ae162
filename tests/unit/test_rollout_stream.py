"""What the loop's thread asks of the stream beside the iterations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from actors.rollout.jobs import Job
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.train.rollout_stream import RolloutStream
from airls_ray.config import Config
from airls_ray.errors import RunError

REQUEST = RolloutRequest(2, 1.0, 0, ("evaluation",))


class Pool(RolloutPool):
    """Samples a row a tick; some rows fail too often."""

    def __init__(self, failing: set[int]) -> None:
        super().__init__(["worker"], 60)
        self.failing = failing
        self.job: Job | None = None

    def start_sampling(self, problems: pa.Table, request: RolloutRequest, rows: Any = None) -> Job:
        self.job = Job(0, problems.num_rows, lambda *_: None)
        return self.job

    def advance(self, timeout: float) -> None:
        time.sleep(0.01)
        if self.job is not None and not self.job.finished:
            row = len(self.job.done) + len(self.job.dropped)
            if row in self.failing:
                self.job.dropped.append(row)
                self.job.reason = "it always dies"
            else:
                self.job.done[row,] = f"rollouts of {row}"


def asked_of(pool: Pool) -> Any:
    """What `generate` returns for three problems, after all iterations."""
    config = Config.model_validate({"method": "grpo", "train": {"iterations": 1}})
    nothing: Any = None
    with RolloutStream(pool, nothing, nothing, nothing, config, iteration=1) as stream:
        return stream.generate(pa.table({"problem_id": ["a", "b", "c"]}), REQUEST)


def test_what_is_asked_for_comes_in_the_order_of_the_problems() -> None:
    assert asked_of(Pool(set())) == ["rollouts of 0", "rollouts of 1", "rollouts of 2"]


def test_a_problem_that_fails_too_often_is_told_to_who_waits() -> None:
    with pytest.raises(RunError, match="1 of 3 rows failed 3 times, the last time: it always dies"):
        asked_of(Pool({1}))


class LatePool(Pool):
    """Its looks take so long that the loop is over before the next one."""

    def __init__(self) -> None:
        super().__init__(set())
        self.looks = threading.Event()
        self.versions: list[int] = []

    def advance(self, timeout: float) -> None:
        self.looks.set()
        time.sleep(0.3)

    def update_weights(self, weights: Any, version: int = 0, wait: bool = True) -> None:
        self.versions.append(version)


class BrokenPool(Pool):
    """Its workers die again and again."""

    def advance(self, timeout: float) -> None:
        raise RunError("rollout workers died 6 times in a row")


def end_of_a_loop(pool: Pool, wait: Callable[[], Any]) -> None:
    """Push the weights of the last iteration after `wait`, and leave the stream."""
    config = Config.model_validate({"method": "grpo", "train": {"iterations": 1}})
    nothing: Any = None
    with RolloutStream(pool, nothing, nothing, nothing, config, iteration=1) as stream:
        wait()
        stream.push("weights", 1)
        stream.train_done()


def test_workers_get_the_last_weights_though_the_loop_ends_before_the_thread_looks() -> None:
    pool = LatePool()
    end_of_a_loop(pool, pool.looks.wait)
    assert pool.versions == [1]


def test_an_error_of_the_thread_is_raised_at_the_end_where_nobody_has_asked_it_since() -> None:
    with pytest.raises(RunError, match="died 6 times"):
        end_of_a_loop(BrokenPool(set()), lambda: time.sleep(0.1))
