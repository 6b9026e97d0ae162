"""The problems of a configuration's files, with everything that is wrong with their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from airls_ray.config.schema import Config
from airls_ray.config.task_choice import MixtureTaskConfig, OwnTaskConfig, TaskConfig
from airls_ray.config.task_sections import CodeTaskConfig, FileTaskConfig
from airls_ray.data.check_report import DataReport, Severity
from airls_ray.data.importing import Imported, import_problems
from airls_ray.errors import DataError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem, Split
from airls_ray.tasks.code_formats import check_details

GENERATED = 200
"""Problems of a generated task that are looked at, of each split."""
WORDS = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Problems:
    """Problems of a split with the place of each, by its identifier."""

    split: Split
    name: str
    """The file, or that they are generated."""
    problems: Sequence[Problem]
    places: Mapping[str, str]


def source_of(task: TaskConfig, split: Split) -> Path | None:
    """Return the file of rows of a split; None: its problems are generated, or in a form of the task's."""
    if isinstance(task, OwnTaskConfig | MixtureTaskConfig):
        return None
    if split == "train":
        return task.train_file
    return task.test_file if isinstance(task, FileTaskConfig | CodeTaskConfig) else None


def read_split(report: DataReport, config: Config, split: Split) -> Problems | None:
    """Read a split and add what is wrong with its rows; None where nothing can be used."""
    task, source = config.task, source_of(config.task, split)
    try:
        if source is None:
            drawn = list(islice(make_task(task).problems(split, config.seed), GENERATED))
            places = {one.problem_id: f"problem {one.problem_id}" for one in drawn}
            return Problems(split, "generated", drawn, places)
        found = _import(task, source)
        if not isinstance(task, FileTaskConfig | CodeTaskConfig):  # which rows these tasks may learn from
            next(make_task(task).problems(split, config.seed))
    except DataError as error:
        report.add(Severity.ERROR, f"{WORDS[split]} files that cannot be used", [str(error)])
        return None
    skips = isinstance(task, FileTaskConfig) and task.bad_rows == "skip"
    left_out = ", which are left out" if skips else ""
    report.add(
        Severity.WARNING if skips else Severity.ERROR,
        f"rows of {source} that cannot be used{left_out}",
        found.bad,
    )
    report.add(Severity.NOTE, f"rows of {source} with the problem of an earlier row", found.twice)
    problems = found.problems
    if split == "test":
        problems = problems[: task.test_problems]
    return Problems(split, str(source), problems, found.places)


def _import(task: TaskConfig, source: Path) -> Imported:
    """Read all rows, the bad ones as sentences."""
    if isinstance(task, FileTaskConfig):
        form = None if task.format is None else task.format.reads()
        return import_problems(source, form, task.fields, "skip")
    if not isinstance(task, CodeTaskConfig):
        return import_problems(source, None, None, "skip")
    found = import_problems(source, task.format.reads(), None, "skip")
    usable = []
    for problem in found.problems:
        try:
            check_details(found.places[problem.problem_id], problem.details)
            usable.append(problem)
        except DataError as error:
            found.bad.append(str(error))
    found.problems = usable
    return found


def add_shared_problems(report: DataReport, found: Sequence[Problems]) -> None:
    """Add the test problems that are training problems, too, of whichever part of a mixture."""
    places = {
        problem.asked: one.places[problem.problem_id]
        for one in found
        if one.split == "train"
        for problem in one.problems
    }
    report.add(
        Severity.ERROR,
        "test problems that are training problems, too",
        (
            f"{test.places[one.problem_id]}: the problem {one.problem_id!r} is in {same}"
            for test in found
            if test.split == "test"
            for one in test.problems
            if (same := places.get(one.asked))
        ),
    )
