import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from actors.rollout.engine import Request, Sample
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from airls_ray.config.schema import ArithmeticTaskConfig, Config, RolloutConfig, TrainConfig
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import ROLLOUTS
from airls_ray.errors import DataError, RunError
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from airls_ray.weights import WeightBuffer, pack_weights
from tests.fakes import FakeEngine, make_fake_engine

TASK = ArithmeticTaskConfig(operations=3)
REQUEST = RolloutRequest(samples=4, temperature=1.0, seed=5, seed_path=("train", 0))


@pytest.fixture
def worker(tmp_path: Path) -> RolloutWorker:
    build_tokenizer(make_task(TASK), tmp_path)
    worker = RolloutWorker("rollout-0", Config(task=TASK), str(tmp_path), make_fake_engine)
    worker.start()
    return worker


def problems(count: int) -> pa.Table:
    return ProblemStream(make_task(TASK), "train", seed=1).take(count)


def test_rollouts_have_the_schema_and_whole_groups_in_order(worker: RolloutWorker) -> None:
    table = worker.generate(problems(3), [7, 8, 9], REQUEST)
    assert table.schema.equals(ROLLOUTS, check_metadata=True)
    assert table["group"].to_pylist() == [7] * 4 + [8] * 4 + [9] * 4
    assert table["index"].to_pylist() == [0, 1, 2, 3] * 3


def test_every_token_has_a_log_probability_and_the_last_step_ends_at_the_end(worker: RolloutWorker) -> None:
    table = worker.generate(problems(3), [0, 1, 2], REQUEST)
    for row in table.to_pylist():
        assert len(row["logprobs"]) == len(row["response"])
        assert row["step_ends"][-1] == len(row["response"])


def test_the_rollouts_of_a_problem_do_not_depend_on_the_others(worker: RolloutWorker) -> None:
    table = problems(4)
    together = worker.generate(table, [0, 1, 2, 3], REQUEST).filter(pa.array([False] * 12 + [True] * 4))
    alone = worker.generate(table.slice(3, 1), [3], REQUEST)
    assert together["response"].to_pylist() == alone["response"].to_pylist()


def responses_of(worker: RolloutWorker, table: pa.Table, rows: Sequence[int]) -> list[list[int]]:
    """What a worker samples for some rows of what the pool is asked for, groups one after the other."""
    job = RolloutPool(["worker"], 60).start_sampling(table, REQUEST)
    handle = SimpleNamespace(generate=SimpleNamespace(remote=worker.generate))
    found: list[list[int]] = job.submit(handle, rows)["response"].to_pylist()
    return found


def test_a_problem_that_comes_again_in_an_iteration_gets_other_rollouts(worker: RolloutWorker) -> None:
    """As where the epochs of a file meet, or a file has fewer problems than an iteration."""
    table = pa.concat_tables([problems(2), problems(1)])
    together = responses_of(worker, table, [0, 1, 2])
    assert together[:4] != together[8:]
    assert together[:8] == responses_of(worker, problems(2), [0, 1])
    assert together[8:] == responses_of(worker, table, [2])


def test_another_iteration_gives_other_rollouts(worker: RolloutWorker) -> None:
    table = problems(2)
    other = RolloutRequest(samples=4, temperature=1.0, seed=5, seed_path=("train", 1))
    assert (
        worker.generate(table, [0, 1], REQUEST)["response"]
        != worker.generate(table, [0, 1], other)["response"]
    )


def test_rollouts_carry_the_version_of_the_weights(worker: RolloutWorker) -> None:
    worker.update_weights(pack_weights([("w", torch.zeros(1))], version=6))
    assert set(worker.generate(problems(1), [0], REQUEST)["version"].to_pylist()) == {6}


def test_a_prompt_that_leaves_no_room_names_problem_and_limits(tmp_path: Path) -> None:
    build_tokenizer(make_task(TASK), tmp_path)
    config = Config(task=TASK, model={"context_tokens": 66}, rollout={"max_response_tokens": 64})
    worker = RolloutWorker("rollout-0", config, str(tmp_path), make_fake_engine)
    worker.start()
    with pytest.raises(DataError, match=r"prompt of \d+ tokens.*leaves 2"):
        worker.generate(problems(1), [0], REQUEST)


class SlowEngine(FakeEngine):
    """Samples for as long as no weights come, and gives each token the version that it had then."""

    def __init__(self, eos: int) -> None:
        super().__init__(12, eos)
        self.sampling = threading.Event()

    def run_interruptible(
        self, requests: Sequence[Request], version: int, news: Callable[[], WeightBuffer | None]
    ) -> list[list[Sample]]:
        self.sampling.set()
        while (weights := news()) is None:
            pass
        self.update_weights(weights)
        versions = [version, weights.version]
        return [
            [Sample([3, self.eos], [-1.0, -1.0], "stop", versions) for _ in range(request.samples)]
            for request in requests
        ]


class BrokenEngine(SlowEngine):
    """Fails in the middle of a load."""

    def update_weights(self, weights: WeightBuffer) -> None:
        raise MemoryError("no room for layer 17")


def sampling_worker(folder: Path, engine: type[SlowEngine]) -> RolloutWorker:
    """One whose sampling can be interrupted."""
    build_tokenizer(make_task(TASK), folder)
    config = Config(
        task=TASK,
        rollout=RolloutConfig(interruptible=True),
        train=TrainConfig(max_staleness=1),
        method={"name": "airl_s", "importance_cap": 2.0},
    )
    worker = RolloutWorker("rollout-0", config, str(folder), lambda _, __, eos: engine(eos[0]))
    worker.start()
    return worker


def test_weights_that_fail_to_load_while_it_samples_are_an_error_of_their_own_call(tmp_path: Path) -> None:
    worker = sampling_worker(tmp_path, BrokenEngine)
    with ThreadPoolExecutor(1) as threads:
        sampled = threads.submit(worker.generate, problems(1), [0], REQUEST)
        assert worker._engine.sampling.wait(30)  # type: ignore[attr-defined]
        with pytest.raises(RunError, match="rollout-0 could not load the weights of version 4"):
            worker.update_weights(pack_weights([("w", torch.zeros(3))], version=4))
        assert isinstance(sampled.exception(30), MemoryError)
    assert worker.version() == 0


def test_weights_that_fail_to_load_leave_the_version(tmp_path: Path) -> None:
    worker = sampling_worker(tmp_path, BrokenEngine)
    with pytest.raises(MemoryError):
        worker.update_weights(pack_weights([("w", torch.zeros(3))], version=4))
    assert worker.version() == 0


def test_weights_that_come_while_it_samples_are_taken_at_once(tmp_path: Path) -> None:
    worker = sampling_worker(tmp_path, SlowEngine)
    found: list[pa.Table] = []
    sampling = threading.Thread(target=lambda: found.append(worker.generate(problems(2), [0, 1], REQUEST)))
    sampling.start()
    engine = worker._engine
    assert isinstance(engine, SlowEngine)
    assert engine.sampling.wait(30)
    worker.update_weights(pack_weights([("w", torch.zeros(3))], version=4))
    sampling.join(30)
    assert not sampling.is_alive()
    assert (engine.loaded, worker.version()) == ([4], 4)
    assert found[0]["version"].to_pylist() == [0] * 8
    assert found[0]["token_versions"].to_pylist() == [[0, 4]] * 8
