"""Search over several rollout workers, one of which dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutWorker
from actors.search.search_parts import PoolGenerator
from airls_ray.config.schema import ArithmeticTaskConfig, Config, Resources
from airls_ray.errors import RunError
from airls_ray.search.beam import Beam
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.live import DriverSettings, Search, SearchProblem
from airls_ray.search.scoring import LogProbScorer
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from tests.fakes import make_fake_engine

TASK = ArithmeticTaskConfig(operations=3)


def pool(folder: Path, started: list[Any], dies: tuple[bool, ...]) -> RolloutPool:
    build_tokenizer(make_task(TASK), folder)
    mine = []
    for index, die in enumerate(dies):
        environment = {"AIRLS_RAY_TEST_DIE": "1"} if die else {}
        name = f"search-{folder.name}-{len(started)}"
        arguments = (f"rollout-{index}", Config(task=TASK), str(folder), make_fake_engine)
        mine.append(
            processes.start_actor(
                RolloutWorker, name, Resources(cpus=0.1, threads=1), *arguments, environment=environment
            )
        )
        started.append(mine[-1])
    cluster.fetch([worker.start.remote() for worker in mine], 60, "starting")
    return RolloutPool(mine, deadline_seconds=60)


def search(workers: RolloutPool) -> list[Search]:
    problems = [SearchProblem(at, f"p{at}", (5, 3 + at), at) for at in range(5)]
    generator = PoolGenerator(workers)
    driver = SearchDriver(generator, LogProbScorer(), lambda tokens: False, DriverSettings(max_steps=4))
    return run_searches(Beam(6, 3), problems, driver)


def test_a_search_does_not_depend_on_the_number_of_workers(tmp_path: Path, started: list[Any]) -> None:
    one = search(pool(tmp_path, started, (False,)))
    three = search(pool(tmp_path, started, (False, False, False)))
    assert [found.state for found in one] == [found.state for found in three]


def test_a_worker_that_dies_in_the_middle_loses_nothing(tmp_path: Path, started: list[Any]) -> None:
    whole = search(pool(tmp_path, started, (False,)))
    wounded = search(pool(tmp_path, started, (False, True)))
    assert [found.state for found in wounded] == [found.state for found in whole]


def test_when_the_last_worker_dies_the_search_says_so(tmp_path: Path, started: list[Any]) -> None:
    with pytest.raises(RunError, match="the last rollout worker died"):
        search(pool(tmp_path, started, (True,)))
