"""Problems of the user's own from JSONL or Parquet files, graded by text or by math-verify."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from airls_ray.errors import DataError
from airls_ray.tasks.base import Grade, Problem, Split
from airls_ray.tasks.problem_files import epochs

if TYPE_CHECKING:
    from airls_ray.config.schema import FileTaskConfig


class FileTask:
    """Problems from two files; the truth of a step is not known. Implements `Task`."""

    name = "file"

    def __init__(self, config: FileTaskConfig) -> None:
        """Keep the configuration; the files are read when problems are first asked for."""
        self._config = config
        self.step_delimiter = config.step_delimiter

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: reshuffled epochs (train), or the test file's order.

        Raises:
            DataError: a file cannot be read, a row is malformed, or a problem occurs in both files.
        """
        train, test = self._splits
        return epochs(train, seed, start) if split == "train" else iter(test[start:])

    def vocabulary(self) -> None:
        """Return None: the model's own tokenizer must be used."""
        return None

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge the final answer with the configured grader."""
        if self._config.grader == "math":
            return grade_math(problem.answer, response)
        return grade_exact(problem.answer, response, self._config.answer_marker)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> None:
        """Return None: nothing is known about single steps."""
        return None

    def warm_up(self) -> None:
        """Import what grading needs, so that the first response does not pay for it."""
        if self._config.grader == "math":
            grade_math("1", "1")

    @cached_property
    def _splits(self) -> tuple[list[Problem], list[Problem]]:
        # Grader processes never come here and must not pay for the import of Arrow.
        from airls_ray.data.problems import read_problems, table_to_problems

        train = table_to_problems(read_problems(self._config.train_file))
        test = table_to_problems(read_problems(self._config.test_file))
        known = {problem.prompt.strip() for problem in train} | {problem.problem_id for problem in train}
        for problem in test:
            if problem.prompt.strip() in known or problem.problem_id in known:
                raise DataError(
                    f"problem {problem.problem_id!r} ({problem.prompt.strip()[:60]!r}) occurs in both "
                    f"{self._config.train_file} and {self._config.test_file}; remove it from one of them"
                )
        return train, test[: self._config.test_problems]


def grade_exact(answer: str, response: str, marker: str) -> Grade:
    """Compare the text after the last `marker`, or else the last line, with `answer`."""
    _, found, tail = response.rpartition(marker) if marker else ("", "", "")
    lines = response.strip().splitlines()
    given = tail.strip() if found else lines[-1].strip() if lines else ""
    return Grade(float(given == answer.strip()), given or None) if given else Grade(0.0, None)


def grade_math(answer: str, response: str) -> Grade:
    """Compare the final answer with math-verify (run it in a process with its own deadline)."""
    parse, verify = _math_verify()
    given = parse(response, parsing_timeout=None)
    if not given:
        return Grade(0.0, None)
    return Grade(float(verify(_parse_answer(answer), given, timeout_seconds=None)), str(given[0]))


@lru_cache(maxsize=1024)
def _parse_answer(answer: str) -> list[Any]:
    parse, _ = _math_verify()
    marked = "$" in answer or "\\boxed" in answer
    # Without math delimiters, LaTeX such as (3, \pi/2) is not recognised.
    return list(parse(answer if marked else f"${answer}$", parsing_timeout=None))


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Any, Any]:
    """Import math-verify late (it takes a second) and without its time limits.

    Those use SIGALRM, which works in a main thread only and turns into silent zeros elsewhere.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # warns at each call without a limit
    return parse, verify
