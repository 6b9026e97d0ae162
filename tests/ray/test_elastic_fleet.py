"""Workers that join, leave, die and hang, with engines that compute nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors.cluster import cluster, placement, processes
from actors.rollout.elastic_fleet import ElasticFleet, FleetEvents, Launch
from actors.rollout.engine import Sample, Sampling
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from actors.rollout.sampling import IterationSampling, sample_all
from airls_ray.config.schema import ArithmeticTaskConfig, Config, FailureConfig, Resources
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import RequestRefused, RunError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from airls_ray.weights import pack_weights
from tests.fakes import FakeEngine

TASK = ArithmeticTaskConfig(operations=3)
REQUEST = RolloutRequest(samples=2, temperature=1.0, seed=5, seed_path=("train", 0))
QUICK = FailureConfig(backoff_seconds=0.1)


class Moody(FakeEngine):
    """Dies of some seeds, raises or refuses others, and hangs or breaks once where a file does not say that
    it has."""

    def __init__(self, eos: int, of: Engines) -> None:
        super().__init__(12, eos)
        self.deadly, self.hangs, self.raises, self.refused = of.deadly, of.hangs, of.raises, of.refused
        self.broken = of.breaks is not None and not of.breaks.exists()
        if self.broken and of.breaks is not None:
            of.breaks.touch()

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        if self.deadly & set(seeds):
            os._exit(1)
        if self.broken or self.raises & set(seeds):
            raise RuntimeError("an illegal memory access")
        if self.refused & set(seeds):
            raise RequestRefused("the engine refuses a request: n must be 1")
        if self.hangs is not None and not self.hangs.exists():
            self.hangs.touch()
            time.sleep(300)
        return super().generate(prompts, seeds, sampling)


@dataclass(frozen=True)
class Engines:
    deadly: frozenset[int] = frozenset()
    hangs: Path | None = None
    raises: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()
    breaks: Path | None = None

    def __call__(self, model: str | Path, config: Config, eos_ids: Sequence[int]) -> Moody:
        return Moody(eos_ids[0], self)


MakeFleet = Callable[..., ElasticFleet]


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[MakeFleet]:
    build_tokenizer(make_task(TASK), tmp_path)
    made: list[ElasticFleet] = []

    def make(
        minimum: int = 1,
        maximum: int = 1,
        engines: Engines = Engines(),
        failures: FailureConfig = QUICK,
        **events: Any,
    ) -> ElasticFleet:
        resources = Resources(cpus=0.05, threads=1)

        def actor(name: str, room: Callable[[], Any] | None) -> Any:
            return processes.start_actor(
                RolloutWorker, "", resources, name, Config(task=TASK), str(tmp_path), engines,
                threads=1, room=room,
            )  # fmt: skip

        launch = Launch({"CPU": 0.05}, actor)
        made.append(
            ElasticFleet(launch, minimum, maximum, failures, start_seconds=240, events=FleetEvents(**events))
        )
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def problems(count: int) -> pa.Table:
    return ProblemStream(make_task(TASK), "train", seed=1).take(count)


def wait_until(what: Callable[[], bool], fleet: ElasticFleet, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, fleet.counts()
        fleet.step(busy=())
        time.sleep(0.05)


def groups(refs: list[Any]) -> list[int]:
    return pa.concat_tables(cluster.resolve(refs))["group"].to_pylist()  # type: ignore[no-any-return]


def seed_of(row: int, table: pa.Table) -> int:
    return derive_seed(REQUEST.seed, "rollout", *REQUEST.seed_path, table["problem_id"][row].as_py())


def test_workers_come_and_go_as_they_are_wanted(make_fleet: MakeFleet) -> None:
    wanted = [1]
    fleet = make_fleet(maximum=3, wanted=lambda: wanted[0])
    seen = []
    for number in (1, 3, 1):
        wanted[0] = number
        wait_until(lambda: fleet.target == wanted[0], fleet)
        wait_until(lambda: fleet.counts()["ready"] == len(fleet.members) == wanted[0], fleet)
        seen.append(len(fleet.ready))
    assert seen == [1, 3, 1]


def test_a_worker_that_joins_late_samples_with_the_current_weights(make_fleet: MakeFleet) -> None:
    wanted = [1]
    fleet = make_fleet(maximum=2, wanted=lambda: wanted[0])
    pool = RolloutPool(fleet, 60, QUICK)
    pool.generate(problems(2), REQUEST)
    pool.update_weights(cluster.put(pack_weights([("w", torch.zeros(3))], version=7)), 7)
    wanted[0] = 2
    wait_until(lambda: len(fleet.ready) == 2, fleet)
    table = pa.concat_tables(cluster.resolve(pool.generate(problems(4), REQUEST)))
    assert set(table["worker"].to_pylist()) == {"rollout-0", "rollout-1"}
    assert set(table["version"].to_pylist()) == {7}


def test_a_dead_worker_is_replaced_and_its_groups_come_once(make_fleet: MakeFleet) -> None:
    failures = QUICK.model_copy(update={"probe_seconds": 0.2})  # Ray may kill it after its share
    fleet = make_fleet(maximum=2, failures=failures)
    pool = RolloutPool(fleet, 60, failures)
    wait_until(lambda: len(fleet.ready) == 2, fleet)
    processes.kill(fleet.ready[1].handle)
    assert groups(pool.generate(problems(5), REQUEST)) == [g for g in range(5) for _ in range(2)]
    wait_until(lambda: fleet.deaths == 1 and len(fleet.ready) == 2, fleet)


def test_a_worker_that_hangs_is_ended_and_its_groups_come_once(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(engines=Engines(hangs=tmp_path / "hung"))
    pool = RolloutPool(fleet, 20, QUICK)
    assert groups(pool.generate(problems(3), REQUEST)) == [0, 0, 1, 1, 2, 2]
    assert fleet.deaths == 1


def test_a_group_that_kills_every_worker_is_left_out_alone(make_fleet: MakeFleet) -> None:
    table = problems(4)
    fleet = make_fleet(engines=Engines(deadly=frozenset({seed_of(2, table)})))
    pool = RolloutPool(fleet, 60, QUICK)
    job = pool.start_sampling(table, REQUEST)
    pool.finish(job)
    assert job.dropped == [2]
    assert groups([ref for _, ref in job.in_order()]) == [0, 0, 1, 1, 3, 3]


def test_a_request_that_the_engine_refuses_costs_no_worker(make_fleet: MakeFleet) -> None:
    table = problems(4)
    fleet = make_fleet(maximum=2, engines=Engines(refused=frozenset({seed_of(0, table)})))
    pool = RolloutPool(fleet, 60, QUICK)
    for _ in range(3):
        with pytest.raises(RequestRefused, match="n must be 1"):
            pool.generate(table, REQUEST)
    assert groups(pool.generate(table.slice(1), REQUEST)) == [0, 0, 1, 1, 2, 2]
    assert fleet.deaths == 0
    counts = pool.counts
    assert counts.submitted == counts.delivered + counts.running + counts.waiting


def test_a_group_that_always_fails_is_left_out_alone_and_costs_no_worker(make_fleet: MakeFleet) -> None:
    table = problems(4)
    fleet = make_fleet(engines=Engines(raises=frozenset({seed_of(2, table)})))
    pool = RolloutPool(fleet, 60, QUICK)
    job = pool.start_sampling(table, REQUEST)
    pool.finish(job)
    assert job.dropped == [2]
    assert "illegal memory access" in job.reason
    assert groups([ref for _, ref in job.in_order()]) == [0, 0, 1, 1, 3, 3]
    assert fleet.deaths == 0


def test_a_worker_whose_engine_is_broken_is_replaced(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(engines=Engines(breaks=tmp_path / "broken"))
    pool = RolloutPool(fleet, 60, QUICK)
    assert groups(pool.generate(problems(3), REQUEST)) == [0, 0, 1, 1, 2, 2]
    assert fleet.deaths == 1


def test_a_pool_whose_workers_died_too_often_goes_on_with_the_next(make_fleet: MakeFleet) -> None:
    table = problems(3)
    failures = QUICK.model_copy(update={"worker_failures": 1, "attempts": 50})
    fleet = make_fleet(engines=Engines(deadly=frozenset({seed_of(0, table)})), failures=failures)
    pool = RolloutPool(fleet, 60, failures)
    with pytest.raises(RunError, match="2 times in a row"):
        pool.generate(table.slice(0, 1), REQUEST)
    assert groups(pool.generate(table.slice(1), REQUEST)) == [0, 0, 1, 1]


@pytest.mark.parametrize(("dropped", "expected"), [("replace", [0, 1, 2]), ("shrink", [0, 2])])
def test_what_a_dropped_problem_does(make_fleet: MakeFleet, dropped: str, expected: list[int]) -> None:
    stream = ProblemStream(make_task(TASK), "train", seed=1)
    table = stream.take(3)
    failures = QUICK.model_copy(update={"dropped": dropped, "attempts": 1})
    fleet = make_fleet(engines=Engines(deadly=frozenset({seed_of(1, table)})), failures=failures)
    pool = RolloutPool(fleet, 60, failures, shares_per_worker=3)
    kept, refs = sample_all(IterationSampling(pool, stream, table, REQUEST, failures), pool)
    assert groups(refs) == [g for g in expected for _ in range(2)]
    rollouts = pa.concat_tables(cluster.resolve(refs))
    assert rollouts["problem_id"].to_pylist()[::2] == kept["problem_id"].to_pylist()


def test_too_small_an_iteration_ends_the_run(make_fleet: MakeFleet) -> None:
    stream = ProblemStream(make_task(TASK), "train", seed=1)
    table = stream.take(2)
    failures = QUICK.model_copy(update={"dropped": "shrink", "attempts": 1, "smallest_share": 0.9})
    fleet = make_fleet(engines=Engines(deadly=frozenset({seed_of(1, table)})), failures=failures)
    pool = RolloutPool(fleet, 60, failures, shares_per_worker=2)
    with pytest.raises(RunError, match=r"1 of 2 groups failed 1 times .* failures\.smallest_share \(0\.9\)"):
        sample_all(IterationSampling(pool, stream, table, REQUEST, failures), pool)


def test_workers_that_keep_dying_end_the_run(make_fleet: MakeFleet) -> None:
    table = problems(2)
    failures = QUICK.model_copy(update={"worker_failures": 2, "attempts": 50})
    deadly = Engines(deadly=frozenset(seed_of(row, table) for row in range(2)))
    pool = RolloutPool(make_fleet(engines=deadly, failures=failures), 60, failures)
    with pytest.raises(RunError, match="rollout workers died 3 times in a row"):
        pool.generate(table, REQUEST)


def test_an_idle_worker_that_is_gone_is_noticed_by_a_probe(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(failures=QUICK.model_copy(update={"probe_seconds": 0.2}))
    wait_until(lambda: len(fleet.ready) == 1, fleet)
    processes.kill(fleet.ready[0].handle)
    wait_until(lambda: fleet.deaths == 1, fleet, seconds=30)


def test_a_worker_on_a_drained_node_finishes_its_share_and_goes(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    wait_until(lambda: len(fleet.ready) == 1, fleet)
    (member,) = fleet.ready
    assert member.node is not None
    nodes = placement.Nodes(frozenset({member.node}), frozenset({member.node}))
    monkeypatch.setattr("actors.cluster.placement.nodes", lambda: nodes)
    seen = []
    for busy in ([member.name], [member.name], []):
        time.sleep(1.1)  # the fleet looks at nodes once a second
        fleet.step(busy)
        seen.append((member.state, member in fleet.members))
    assert seen == [("draining", True), ("draining", True), ("draining", False)]
    assert fleet.deaths == 0


def test_a_node_that_goes_with_all_its_workers_counts_once(make_fleet: MakeFleet) -> None:
    failures = FailureConfig(worker_failures=1, backoff_seconds=30.0)
    fleet = make_fleet(minimum=4, maximum=4, failures=failures)
    wait_until(lambda: len(fleet.ready) == 4, fleet)
    for member in fleet.ready:
        fleet.lost(member, "its node is gone")
    assert (fleet.deaths, len(fleet.members)) == (4, 0)


def test_a_weight_sync_that_hangs_ends_the_worker_and_not_the_pool(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fleet = make_fleet(engines=Engines(hangs=tmp_path / "hung"))
    pool = RolloutPool(fleet, 20, QUICK)
    wait_until(lambda: len(fleet.ready) == 1, fleet)
    fleet.ready[0].handle.generate.remote(problems(1), [0], REQUEST)  # it hangs, and the sync waits behind it
    pool.update_weights(cluster.put(pack_weights([("w", torch.zeros(3))], version=2)), 2, wait=False)
    table = pa.concat_tables(cluster.resolve(pool.generate(problems(2), REQUEST)))
    assert fleet.deaths == 1
    assert set(table["version"].to_pylist()) == {2}
