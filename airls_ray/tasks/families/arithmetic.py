"""Chains of modular arithmetic, evaluated from left to right, one reasoning step per operation.

Prompt `7+3*4-5=`, response `7+3=0;0*4=0;0-5=5;`: every step ends in `;`, so that all steps look alike
and the end of sequence says only that the chain is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from airls_ray.tasks.base import Grade, Problem, Split
from airls_ray.tasks.generate import Generator, content_id, split_by_hash
from airls_ray.tasks.problem_files import epochs, read_training_file

if TYPE_CHECKING:
    from airls_ray.config.schema import ArithmeticTaskConfig

_OPERATORS = "+-*"
_NUMBER = r"(0|[1-9]\d{0,8})"
_STEP = re.compile(rf"{_NUMBER}([-+*]){_NUMBER}={_NUMBER};")
_TERM = re.compile(r"([-+*])(\d+)")


def apply(left: int, operator: str, right: int, modulus: int) -> int:
    """Return `left operator right` modulo `modulus`, in [0, modulus)."""
    if operator == "+":
        return (left + right) % modulus
    if operator == "-":
        return (left - right) % modulus
    return (left * right) % modulus


def read_chain(prompt: str) -> tuple[int, list[tuple[str, int]]]:
    """Return the start value and the operations of `prompt`, such as `7+3*4=`."""
    start, terms = re.match(r"\d+", prompt), _TERM.findall(prompt)
    return int(start.group()) if start else 0, [(operator, int(right)) for operator, right in terms]


class ArithmeticTask:
    """See the module's docstring; implements `airls_ray.tasks.base.Task`."""

    name = "arithmetic"
    step_delimiter = ";"

    def __init__(self, config: ArithmeticTaskConfig) -> None:
        """Keep the size of the chains; nothing is generated yet."""
        self._operations = config.operations
        self._modulus = config.modulus
        self._test_problems = config.test_problems
        self._train_file = config.train_file
        self._response = re.compile(rf"(?:\d+[-+*]\d+=\d+;){{{config.operations - 1}}}" + _STEP.pattern)
        self._generator = Generator(self._prompts, split_by_hash, self.problem)

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: without end (train) or the fixed test set."""
        if split == "train" and self._train_file is not None:
            return epochs(self._file_problems, seed, start)
        if split == "train":
            return self._generator.train(seed, start)
        return islice(self._generator.test(self._test_problems), start, None)

    @cached_property
    def _file_problems(self) -> list[Problem]:
        assert self._train_file is not None
        return read_training_file(self._train_file, self._may_train)

    def _may_train(self, problem: Problem) -> bool:
        _, terms = read_chain(problem.prompt)
        own = len(terms) == self._operations and split_by_hash(problem.prompt) == "train"
        return own and problem.answer == self.problem(problem.prompt).answer  # not of another modulus

    def vocabulary(self) -> list[str]:
        """Return every number as one token, the operators, `=` and `;`."""
        return [*map(str, range(self._modulus)), *_OPERATORS, "=", ";"]

    def problem(self, prompt: str) -> Problem:
        """Return the problem of `prompt` with its answer and its one trace."""
        value, terms = read_chain(prompt)
        steps = []
        for operator, right in terms:
            left, value = value, apply(value, operator, right, self._modulus)
            steps.append(f"{left}{operator}{right}={value};")
        identity = content_id(self.name, f"{self._modulus}/{prompt}")
        return Problem(identity, prompt, str(value), ("".join(steps),))

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge the last stated result; no answer unless there are exactly `operations` whole steps."""
        match = self._response.fullmatch(response)
        if match is None:
            return Grade(0.0, None)
        answer = match.group(4)
        return Grade(float(answer == problem.answer), answer)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether each step follows from the previous STATED result and the problem, and is computed right.

        A step after one that cannot be read is wrong (there is no result to go on from), and so are
        steps beyond the chain.
        """
        start, terms = read_chain(problem.prompt)
        stated: str | None = str(start)
        truth = []
        for index, text in enumerate(steps):
            match = _STEP.fullmatch(text)
            right = index < len(terms) and match is not None and self._holds(match, stated, terms[index])
            truth.append(right)
            stated = match.group(4) if match else None
        return truth

    def _holds(self, match: re.Match[str], stated: str | None, term: tuple[str, int]) -> bool:
        left, operator, right, result = match.groups()
        return (
            left == stated
            and (operator, right) == (term[0], str(term[1]))
            and result == str(apply(int(left), operator, int(right), self._modulus))
        )

    def _prompts(self, rng: Random, split: Split) -> Iterator[str]:
        """Yield random prompts without end."""
        numbers = [str(number) for number in range(self._modulus)]
        while True:
            values = rng.choices(numbers, k=self._operations + 1)
            operators = rng.choices(_OPERATORS, k=self._operations)
            terms = [operator + value for operator, value in zip(operators, values[1:], strict=True)]
            yield f"{values[0]}{''.join(terms)}="


TASK = ArithmeticTask
