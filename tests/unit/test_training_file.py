"""Built-in tasks train on the problems of a file, never on a test problem."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from airls_ray.config.schema import ArithmeticTaskConfig, CountdownTaskConfig
from airls_ray.data.problems import ProblemStream, write_problems
from airls_ray.errors import DataError
from airls_ray.tasks import Task, make_task

Settings = ArithmeticTaskConfig | CountdownTaskConfig
TASKS: list[Settings] = [
    ArithmeticTaskConfig(operations=3, test_problems=20),
    CountdownTaskConfig(numbers=3, max_number=30, test_problems=20),
]


def with_file(task: Settings, file: Path) -> Task:
    return make_task(task.model_copy(update={"train_file": file}))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_epoch_holds_every_problem_of_the_file_once(task: Settings, tmp_path: Path) -> None:
    made = ProblemStream(make_task(task), "train", 3).take(12)
    write_problems(made, tmp_path / "train.jsonl")
    drawn = list(islice(with_file(task, tmp_path / "train.jsonl").problems("train", seed=0), 24))
    identities = sorted(set(made["problem_id"].to_pylist()))
    assert sorted({problem.problem_id for problem in drawn[:12]}) == identities
    assert [p.problem_id for p in drawn[:12]] != [p.problem_id for p in drawn[12:]]
    assert all(problem.traces for problem in drawn)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_stream_from_a_file_can_start_anywhere(task: Settings, tmp_path: Path) -> None:
    write_problems(ProblemStream(make_task(task), "train", 3).take(5), tmp_path / "train.jsonl")
    again = with_file(task, tmp_path / "train.jsonl")
    whole = [problem.problem_id for problem in islice(again.problems("train", 1), 12)]
    assert [p.problem_id for p in islice(again.problems("train", 1, start=7), 5)] == whole[7:]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_test_problem_in_the_file_is_an_error_that_names_the_row(task: Settings, tmp_path: Path) -> None:
    write_problems(ProblemStream(make_task(task), "test", 0).take(1), tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"train\.jsonl, row 1: .* is a test problem"):
        next(with_file(task, tmp_path / "train.jsonl").problems("train", 0))


def test_problems_of_other_settings_are_an_error(tmp_path: Path) -> None:
    longer = make_task(ArithmeticTaskConfig(operations=5))
    write_problems(ProblemStream(longer, "train", 0).take(3), tmp_path / "train.jsonl")
    with pytest.raises(DataError, match="same task settings"):
        next(with_file(TASKS[0], tmp_path / "train.jsonl").problems("train", 0))


def test_the_test_set_does_not_change(tmp_path: Path) -> None:
    task = TASKS[0]
    write_problems(ProblemStream(make_task(task), "train", 0).take(3), tmp_path / "train.jsonl")
    own, other = make_task(task), with_file(task, tmp_path / "train.jsonl")
    assert list(own.problems("test", 0)) == list(other.problems("test", 0))
