import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors.cluster import cluster, processes
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from airls_ray.config.schema import ArithmeticTaskConfig, Config, Resources
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import PREFIXES, rows_to_table
from airls_ray.errors import ProcessLost, RunError
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from airls_ray.weights import pack_weights
from tests.fakes import make_fake_engine

TASK = ArithmeticTaskConfig(operations=3)
REQUEST = RolloutRequest(samples=2, temperature=1.0, seed=5, seed_path=("train", 0), first_group=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tokenizer(make_task(TASK), tmp_path)
    return tmp_path


def start(folder: Path, started: list[Any], dies: tuple[bool, ...]) -> RolloutPool:
    for index, die in enumerate(dies):
        environment = {"AIRLS_RAY_TEST_DIE": "1"} if die else {}
        name = f"pool-{folder.name}-{len(started)}"
        resources = Resources(cpus=0.1, threads=1)
        arguments = (f"rollout-{index}", Config(task=TASK), str(folder), make_fake_engine)
        started.append(
            processes.start_actor(RolloutWorker, name, resources, *arguments, environment=environment)
        )
    cluster.fetch([worker.start.remote() for worker in started], 60, "starting")
    return RolloutPool(started, deadline_seconds=60)


def problems(count: int) -> pa.Table:
    return ProblemStream(make_task(TASK), "train", seed=1).take(count)


def rollouts(pool: RolloutPool, count: int) -> pa.Table:
    return pa.concat_tables(cluster.resolve(pool.generate(problems(count), REQUEST)))


def test_every_group_is_delivered_once_and_in_order(folder: Path, started: list[Any]) -> None:
    table = rollouts(start(folder, started, (False, False)), 5)
    assert table["group"].to_pylist() == [g for g in range(10, 15) for _ in range(2)]


def test_the_share_of_a_worker_that_dies_is_sampled_by_another_one(folder: Path, started: list[Any]) -> None:
    whole = rollouts(start(folder, started, (False,)), 5)
    pool = start(folder, started, (False, True))
    table = pa.concat_tables(cluster.resolve(pool.generate(problems(5), REQUEST)))
    assert table["response"].to_pylist() == whole["response"].to_pylist()
    assert table["group"].to_pylist() == whole["group"].to_pylist()


def test_when_the_last_worker_dies_the_error_says_so(folder: Path, started: list[Any]) -> None:
    pool = start(folder, started, (True,))
    with pytest.raises(RunError, match="the last rollout worker died"):
        pool.generate(problems(2), REQUEST)


def test_all_workers_sample_at_the_version_of_the_last_sync(folder: Path, started: list[Any]) -> None:
    pool = start(folder, started, (False, False))
    pool.update_weights(cluster.put(pack_weights([("w", torch.zeros(3))], version=4)))
    table = pa.concat_tables(cluster.resolve(pool.generate(problems(4), REQUEST)))
    assert set(table["version"].to_pylist()) == {4}


def prefixes() -> pa.Table:
    """Beginnings of different lengths, the third of which leaves no room."""
    responses = [[3], [3, 4], [5] * Config(task=TASK).rollout.max_response_tokens, [6], [7]]
    return rows_to_table([(f"p{n}", [2, 3], response) for n, response in enumerate(responses)], PREFIXES)


class DyingLearner:
    """Its process ends while it exports its weights."""

    def export_weights(self) -> None:
        os._exit(1)


@pytest.mark.parametrize("wait", [True, False], ids=["waited-for", "while-they-sample"])
def test_a_learner_that_dies_while_it_exports_costs_no_worker(
    folder: Path, started: list[Any], wait: bool
) -> None:
    pool = start(folder, started, (False, False))
    learner = processes.start_actor(DyingLearner, "", Resources(cpus=0.1, threads=1))
    with pytest.raises(ProcessLost):
        pool.update_weights(learner.export_weights.remote(), 1, wait=wait)
        pool.generate(problems(5), REQUEST)
    pool.update_weights(cluster.put(pack_weights([("w", torch.zeros(3))], version=2)), 2, wait=wait)
    table = rollouts(pool, 5)
    assert set(table["worker"].to_pylist()) == {"rollout-0", "rollout-1"}
    assert set(table["version"].to_pylist()) == {2}


def test_completions_do_not_depend_on_the_number_of_workers(folder: Path, started: list[Any]) -> None:
    one = pa.concat_tables(cluster.resolve(start(folder, started, (False,)).complete(prefixes(), REQUEST)))
    two = start(folder, started, (False, False)).complete(prefixes(), REQUEST)
    assert len(two) > 1
    assert pa.concat_tables(cluster.resolve(two)).equals(one)
    assert one["prefix"].to_pylist() == [10, 10, 11, 11, 13, 13, 14, 14]


def test_no_prefixes_are_no_work(folder: Path, started: list[Any]) -> None:
    assert start(folder, started, (False,)).complete(prefixes().slice(0, 0), REQUEST) == []
