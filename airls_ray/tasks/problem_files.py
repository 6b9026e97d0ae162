"""Training problems that come from a file: reshuffled epochs, and the check that none is a test problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random

from airls_ray.errors import DataError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Problem


def read_training_file(path: Path, may_train: Callable[[Problem], bool]) -> list[Problem]:
    """Read a file of problems of a built-in task, such as `airls-ray data unsolved` writes.

    Raises:
        DataError: the file is malformed, or a row is a test problem or none of this task.
    """
    # Grader processes never come here and must not pay for the import of Arrow.
    from airls_ray.data.importing import import_problems

    found = import_problems(path, None, bad_rows="error", remedy="")
    for problem in found.problems:
        if not may_train(problem):
            raise DataError(
                f"{found.places[problem.problem_id]}: {problem.prompt.strip()[:60]!r} is a test problem of "
                "this task or none of its problems at all; make the file with the same task settings"
            )
    return found.problems


def check_apart(train: Sequence[Problem], test: Sequence[Problem], train_file: Path, test_file: Path) -> None:
    """Refuse two files that share a problem, by its prompt or its id.

    Raises:
        DataError: names the problem and both files.
    """
    known = {problem.asked for problem in train} | {problem.problem_id for problem in train}
    for problem in test:
        if problem.asked in known or problem.problem_id in known:
            raise DataError(
                f"problem {problem.problem_id!r} ({problem.prompt.strip()[:60]!r}) occurs in both "
                f"{train_file} and {test_file}; remove it from one of them"
            )


def epochs(problems: list[Problem], seed: int, start: int) -> Iterator[Problem]:
    """Yield the problems without end from position `start`, in a new order each epoch."""
    skip = start % len(problems)
    for epoch in count(start // len(problems)):
        order = list(range(len(problems)))
        Random(derive_seed(seed, "epoch", epoch)).shuffle(order)
        for position in order[skip:]:
            yield problems[position]
        skip = 0
