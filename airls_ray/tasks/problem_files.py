"""Training problems that come from a file: reshuffled epochs, and the check that none is a test problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    from airls_ray.data.problems import read_problems, table_to_problems

    problems = table_to_problems(read_problems(path))
    for row, problem in enumerate(problems, 1):
        if not may_train(problem):
            raise DataError(
                f"{path}, row {row}: {problem.prompt.strip()[:60]!r} is a test problem of this task or "
                "none of its problems at all; make the file with the same task settings"
            )
    return problems


def epochs(problems: list[Problem], seed: int, start: int) -> Iterator[Problem]:
    """Yield the problems without end from position `start`, in a new order each epoch."""
    skip = start % len(problems)
    for epoch in count(start // len(problems)):
        order = list(range(len(problems)))
        Random(derive_seed(seed, "epoch", epoch)).shuffle(order)
        for position in order[skip:]:
            yield problems[position]
        skip = 0
