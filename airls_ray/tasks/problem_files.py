"""Problems that come from files: reshuffled epochs, and the check that none to train on is a test problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from random import Random

from airls_ray.errors import DataError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Problem, Split


class TwoFiles(ABC):
    """The problems of a task that has them in two files, which are read when problems are first asked for.
    Nothing is known of single steps."""

    def __init__(self, train_file: Path, test_file: Path, test_problems: int) -> None:
        """Keep where they are, and how many test problems are used at most."""
        self._files = train_file, test_file
        self._test_problems = test_problems

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: reshuffled epochs (train), or the test file's order.

        Raises:
            DataError: a file cannot be read, a row is malformed, or a problem occurs in both files.
        """
        train, test = self.splits
        return epochs(train, seed, start) if split == "train" else iter(test[start:])

    def vocabulary(self) -> None:
        """Return None: the model's own tokenizer must be used."""
        return None

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> None:
        """Return None: nothing is known about single steps."""
        return None

    @cached_property
    def splits(self) -> tuple[list[Problem], list[Problem]]:
        """The problems to train on, and those of the test.

        Raises:
            DataError: as of `problems`.
        """
        train, test = (self._read(source) for source in self._files)
        check_apart(train, test, *self._files)
        return train, test[: self._test_problems]

    @abstractmethod
    def _read(self, source: Path) -> list[Problem]:
        """Return the problems of a file, or of a data set of the hub."""


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


def check_apart(
    train: Sequence[Problem], test: Sequence[Problem], train_file: Path | str, test_file: Path | str
) -> None:
    """Refuse two files that share a problem, by all that it asks.

    An identifier says nothing across files: many number their rows from 0.

    Raises:
        DataError: names the problem and both files.
    """
    known = {problem.asked for problem in train}
    for problem in test:
        if problem.asked in known:
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
