"""Groups that row filters leave out, and those that are sampled in their place (`train.refill_rounds`)."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors.learn.groups import NoReference
from actors.rollout.jobs import Job
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.rollout.sampling import training_request
from actors.train.evaluate import rollouts_sampled
from actors.train.gathering import gather
from actors.train.start import training_problems
from actors.train.tracking import LoopState, Stopwatch
from actors.verify.verifier import Verifier
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config import load_config
from airls_ray.config.schema import Config, MethodConfig
from airls_ray.data.check_sampler import problems_drawn
from airls_ray.errors import ConfigError, ProcessLost
from airls_ray.grading.pool import GradeResult
from airls_ray.grading.table import results_to_table
from airls_ray.learning.group_filter import count_kept_groups
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from tests.tiny import make_rollouts
from tests.unit.test_advantages import grades_of

WANTED, SIZE = 12, 4


def settings(*overrides: str, rounds: int = 50) -> Config:
    given = [
        "method=dapo",
        f"train.problems_per_iteration={WANTED}",
        f"train.rollouts_per_problem={SIZE}",
        f"train.refill_rounds={rounds}",
    ]
    return load_config(None, [*given, *overrides])


def teaches(problem_id: str) -> bool:
    """Whether a problem is sometimes right: a third of them."""
    return derive_seed(0, problem_id) % 3 == 0


class Pool(RolloutPool):
    """Samples at once, by the seeds of the request."""

    def __init__(self) -> None:
        super().__init__(["worker"], 60)
        self.requests: list[RolloutRequest] = []

    def start_sampling(self, problems: pa.Table, request: RolloutRequest, rows: Any = None) -> Job:
        self.requests.append(request)
        job = Job(0, problems.num_rows, lambda *_: None)
        for row, name in enumerate(problems["problem_id"].to_pylist()):
            seed = derive_seed(request.seed, "rollout", *request.seed_path, name)
            table = make_rollouts(1, request.samples, seed=seed % 2**31)
            columns = {
                "problem_id": pa.array([name] * SIZE),
                "group": pa.array([request.first_group + row] * SIZE, pa.int64()),
            }
            for column, values in columns.items():
                at = table.column_names.index(column)
                table = table.set_column(at, table.schema.field(at), values)
            job.done[row,] = table
        return job

    def close(self, job: Job) -> None:
        pass


class FailingPool(Pool):
    """The groups of the first refill fail again and again."""

    def start_sampling(self, problems: pa.Table, request: RolloutRequest, rows: Any = None) -> Job:
        job = super().start_sampling(problems, request, rows)
        if request.seed_path[-2:] == ("refill", 1):
            job.done.clear()
            job.dropped = list(range(problems.num_rows))
        return job


class Judge:
    """Grades by the problem: of one that teaches one rollout is right. Some calls lose its process."""

    def __init__(self, config: Config, losses: int = 0) -> None:
        self.config, self.losses, self.calls = config, losses, Counter[str]()

    def grade(self, rollouts: Any, problems: pa.Table, *, learning: bool = False) -> pa.Table:
        self.calls["grade"] += 1
        if self.losses and self.calls["grade"] == 3:
            self.losses -= 1
            raise ProcessLost("gone")
        table = pa.concat_tables(rollouts)
        right = [
            float(index == 0 and teaches(name))
            for index, name in zip(table["index"].to_pylist(), table["problem_id"].to_pylist(), strict=True)
        ]
        grades = grades_of(table)
        return grades.set_column(0, grades.schema.field(0), pa.array(right, pa.float32()))

    def call(self, method: str, *arguments: Any) -> Any:
        self.calls[method] += 1
        itself: Any = SimpleNamespace(_config=self.config, _rollouts=Verifier._rollouts)
        return getattr(Verifier, method)(itself, *arguments)

    def join(self, grades: Any) -> pa.Table:
        return self.call("join_grades", grades)


def gathered(
    config: Config,
    iteration: int = 0,
    state: LoopState | None = None,
    pool: Pool | None = None,
    **more: Any,
) -> Any:
    """Problems, rollouts and grades of an iteration, and the parts that made them."""
    parts: Any = SimpleNamespace(
        problems=training_problems(config, state or LoopState(), None),
        pool=pool or Pool(),
        verifier=Judge(config, **more),
        reference=NoReference(),
    )
    request = training_request(config, iteration)
    problems, rollouts, grades, _ = gather(parts, config, iteration, request, Stopwatch())
    return problems, pa.concat_tables(rollouts), grades, parts


def stream_of(config: Config) -> Any:
    return make_task(config.task).problems("train", derive_seed(config.seed, "problems"))


def test_sampled_is_the_shortest_run_of_the_stream_that_has_as_many_groups_as_are_wanted() -> None:
    config = settings()
    problems, rollouts, grades, parts = gathered(config)
    wanted: list[str] = []
    for problem in stream_of(config):
        wanted.append(problem.problem_id)
        if sum(map(teaches, wanted)) == WANTED:
            break
    assert problems["problem_id"].to_pylist() == wanted
    assert rollouts["problem_id"].to_pylist() == [name for name in wanted for _ in range(SIZE)]
    assert rollouts["group"].to_pylist() == [at for at in range(len(wanted)) for _ in range(SIZE)]
    assert grades["outcome"].to_pylist() == [
        float(at == 0 and teaches(name)) for name in wanted for at in range(SIZE)
    ]
    assert parts.problems.position == len(wanted)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_no_more_rounds_are_sampled_than_the_cap(rounds: int) -> None:
    """The same problems as without one, cut where the rounds end."""
    config = settings(rounds=rounds)
    problems, _, _, parts = gathered(config)
    stream, wanted, missing = stream_of(config), [], WANTED
    for _ in range(rounds + 1):
        drawn = [problem.problem_id for problem in islice(stream, missing)]
        missing -= sum(map(teaches, drawn))
        wanted += drawn
    assert missing > 0
    assert problems["problem_id"].to_pylist() == wanted
    assert len(parts.pool.requests) == rounds + 1
    assert parts.verifier.calls["kept_groups"] == rounds


def test_without_refills_an_iteration_is_sampled_as_it_was() -> None:
    (request,) = gathered(settings(rounds=0))[-1].pool.requests
    assert request == training_request(settings(rounds=0), 0)


def test_the_same_seed_samples_the_same_and_rounds_differ_in_their_seeds() -> None:
    config = settings()
    (*_, first, _, parts), (*_, again, _, _) = gathered(config), gathered(config)
    assert first.equals(again)
    paths = [request.seed_path for request in parts.pool.requests]
    assert len(set(paths)) == len(paths) > 2
    assert paths[0] == ("train", 0)
    other = gathered(settings("seed=1"))[1]
    assert not first.equals(other)


@pytest.mark.parametrize("sampler", ["in_order", "prioritised"])
def test_a_resume_goes_on_with_the_same_problems(sampler: str) -> None:
    """The second iteration of one run, and the first after a resume from what the first one left."""
    config = settings(f"train.problem_sampler={sampler}")
    problems, rollouts, grades, parts = gathered(config)
    ids = rollouts["problem_id"].to_pylist()[::SIZE]
    told = [(name, grades["outcome"].to_pylist()[at * SIZE : (at + 1) * SIZE]) for at, name in enumerate(ids)]
    parts.problems.seen(0, told)
    state = LoopState(iteration=1, position=parts.problems.position, problem_sampler=parts.problems.saved(1))
    request = training_request(config, 1)
    through = gather(parts, config, 1, request, Stopwatch())
    resumed = gathered(config, 1, state)
    assert through[0].equals(resumed[0])
    assert pa.concat_tables(through[1]).equals(resumed[1])
    assert not through[0].equals(problems)


def test_what_is_lost_in_the_middle_is_done_again_to_the_same_end() -> None:
    config = settings()
    quiet, wounded = gathered(config), gathered(config, losses=1)
    assert wounded[-1].verifier.losses == 0 < quiet[-1].verifier.calls["grade"]
    assert all(one.equals(other) for one, other in zip(quiet[:3], wounded[:3], strict=True))
    assert quiet[-1].problems.position == wounded[-1].problems.position


def test_grades_of_rounds_become_one_table_whatever_their_reasons(monkeypatch: Any) -> None:
    """Each table has a dictionary of reasons of its own."""
    monkeypatch.setattr("actors.verify.verifier_handle.cluster.wait_done", lambda *_: None)
    reasons = [["graded", "timeout"], ["wrong_answer", "graded"], ["crashed", "timeout"]]
    tables = [
        results_to_table([GradeResult(0.0, None, None, status) for status in statuses])
        for statuses in reasons
    ]
    itself: Any = SimpleNamespace()
    remote: Any = SimpleNamespace(remote=lambda parts: Verifier.join_grades(itself, parts))
    handle = VerifierHandle(SimpleNamespace(join_grades=remote), 1.0)
    joined = handle.join(tables)
    assert joined["status"].to_pylist() == [one for statuses in reasons for one in statuses]
    assert joined.schema.equals(tables[0].schema)
    assert handle.join(tables[:1]) is tables[0]


def test_the_warm_up_of_a_prm_refills_nothing() -> None:
    config = settings("method=airl_s", "method.drop_constant_groups=true", "prm.warmup_iterations=1")
    assert gathered(config, 0)[0].num_rows == WANTED
    assert gathered(config, 1)[0].num_rows > WANTED


def test_kept_groups_are_those_of_which_some_rollout_is_kept() -> None:
    rollouts = make_rollouts(500, 4, seed=3)
    generator = torch.Generator().manual_seed(0)
    outcomes = (torch.rand(2000, generator=generator) < 0.3).float()
    at = rollouts.column_names.index("outcome")
    table = rollouts.set_column(at, rollouts.field(at), pa.array(outcomes.numpy()))
    by_group: dict[int, set[float]] = {}
    for group, outcome in zip(table["group"].to_pylist(), outcomes.tolist(), strict=True):
        by_group.setdefault(group, set()).add(outcome)
    wanted = sum(len(one) == 2 for one in by_group.values())
    assert 0 < wanted < 500
    assert count_kept_groups(table, MethodConfig(name="dapo").filters) == wanted
    assert count_kept_groups(table.slice(0, 0), MethodConfig(name="dapo").filters) == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=grpo"], "for groups that row filters leave out, and there is none"),
        (
            ["method=dapo", "train.max_staleness=1", "method.importance_cap=2"],
            "set train.max_staleness to 0",
        ),
    ],
)
def test_settings_with_which_nothing_can_be_refilled_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, [*overrides, "train.refill_rounds=2"])


def test_the_problems_that_may_be_drawn_are_checked_before_a_run() -> None:
    assert problems_drawn(settings(rounds=3)) == 4 * problems_drawn(settings(rounds=0))


def test_a_summary_counts_the_rollouts_of_replaced_groups() -> None:
    """An iteration of 6 groups, one of 10, one whose metrics do not say: 4 rollouts each."""
    config = load_config(None, ["train.problems_per_iteration=6", "train.rollouts_per_problem=4"])
    assert rollouts_sampled([{"groups/sampled": 6.0}, {"groups/sampled": 10.0}, {}], config) == 22 * 4


@pytest.mark.parametrize("rounds", [1, 2])
def test_an_iteration_goes_on_where_all_groups_of_a_refill_are_dropped(rounds: int) -> None:
    """`failures.smallest_share` is of the iteration's groups, and a refill may ask for a single one."""
    config = settings("failures.dropped=shrink", rounds=rounds)
    problems, rollouts, grades, _ = gathered(config, pool=FailingPool())
    first = [problem.problem_id for problem in islice(stream_of(config), WANTED)]
    names = problems["problem_id"].to_pylist()
    assert names[:WANTED] == first
    assert (len(names) > WANTED) == (rounds == 2)
    assert rollouts.num_rows == grades.num_rows == len(names) * SIZE
