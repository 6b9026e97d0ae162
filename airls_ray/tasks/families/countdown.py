"""Countdown: reach a target from given numbers with + - * /, every number used exactly once.

Prompt `15,44,79,50:` (the target last), response `44-15=29,79-29=50`, character by character. Rules and
texts are those of the public test files of Dream (github.com/DreamLM/Dream, `eval/data`): see
`countdown_solver`.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from airls_ray.errors import ConfigError, DataError
from airls_ray.tasks.base import Grade, Problem, Split
from airls_ray.tasks.countdown_solver import (
    LARGEST_RESULT,
    random_steps,
    reachable,
    solutions,
    solvable,
)
from airls_ray.tasks.generate import Generator, content_id, split_by_hash
from airls_ray.tasks.problem_files import epochs, read_training_file

if TYPE_CHECKING:
    from airls_ray.config.schema import CountdownTaskConfig

Puzzle = tuple[tuple[int, ...], int]
"""Numbers in the order of the prompt, and the target."""

_NUMBER = r"(0|[1-9]\d{0,8})"
_STEP = re.compile(rf"{_NUMBER}([-+*/]){_NUMBER}={_NUMBER}")
_INPUT = re.compile(r"[1-9]\d*(,[1-9]\d*){2,}")
_SMALLEST_TARGET = 10
"""As in the public files: their targets are 9 of the 90 from 10 to 99."""
_QUEUE = 64
_KEEP = {2: 1.0, 3: 1.0, 4: 0.5, 5: 0.15, 6: 0.06}
"""Share of a number set's targets that become training candidates, by count of numbers: about six
problems per number set at most, so that neighbours in the stream do not share their numbers."""


class CountdownTask:
    """See the module's docstring; implements `airls_ray.tasks.base.Task`."""

    name = "countdown"
    step_delimiter = ","

    def __init__(self, config: CountdownTaskConfig) -> None:
        """Keep the sizes; the test file is read when problems are first asked for."""
        self._config = config
        smallest = _SMALLEST_TARGET if config.max_number >= 2 * _SMALLEST_TARGET else 1
        self._targets = range(smallest, config.max_number + 1)
        self._train_sizes = tuple(config.train_numbers) or (config.numbers,)
        self._generator = Generator(self._puzzles, self._split_of, self.problem)

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: without end (train) or the fixed test set."""
        if split == "train" and self._config.train_file is not None:
            return epochs(self._training_file, seed, start)
        if split == "train":
            return self._generator.train(seed, start)
        if self._config.test_file is not None:
            return iter(self._file_problems[start : self._config.test_problems])
        return islice(self._generator.test(self._config.test_problems), start, None)

    def vocabulary(self) -> list[str]:
        """Return digits, operators and the three signs of the format."""
        return [*"0123456789", *"+-*/", "=", ",", ":"]

    def problem(self, puzzle: Puzzle) -> Problem:
        """Return the problem with `traces_per_problem` different solutions (fewer where fewer exist)."""
        numbers, target = puzzle
        traces: dict[str, str] = {}
        for steps in solutions(numbers, target):
            # The same steps in another order are not another solution.
            traces.setdefault(",".join(sorted(map(_canonical_step, steps))), ",".join(steps))
            if len(traces) == self._config.traces_per_problem:
                break
        prompt = ",".join(map(str, (*numbers, target))) + ":"
        return Problem(content_id(self.name, prompt), prompt, str(target), tuple(traces.values()))

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge a chain: every step valid, every number used once, the target last.

        All correct responses share the target, so a vote needs something else: the answer is the chain
        with the operands of + and * sorted. It is given for every chain that can be read, right or wrong.
        """
        steps = response.split(",")
        if not all(_STEP.fullmatch(step) for step in steps):
            return Grade(0.0, None)
        right = solves(read_prompt(problem.prompt), response)
        return Grade(float(right), ",".join(map(_canonical_step, steps)))

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool]:
        """Whether the response up to each step can still become a right one.

        The step's numbers are available, its arithmetic holds, the target is still reachable with all
        numbers that remain, and it ends in `,` exactly if there are such. All is lost after an error.
        """
        return _truth(read_prompt(problem.prompt), steps)

    def detour(self, problem: Problem, rng: Random) -> str:
        """Return a chain that follows the first trace up to a random step, then right steps at random.

        Every step's arithmetic holds, but the last result is rarely the target. A policy that has seen
        solutions alone writes the target behind the last `=`, whatever the operation gives.
        """
        numbers, target = read_prompt(problem.prompt)
        steps = problem.traces[0].split(",")
        kept = steps[: rng.randrange(len(steps))]
        for step in kept:
            pool = _after(list(numbers), step + ",", target)
            assert pool is not None
            numbers = tuple(pool)
        # Sums of two numbers fit; of larger products a solution has few, and they are hard to learn.
        return ",".join([*kept, *random_steps(numbers, 2 * self._config.max_number, rng)])

    def _puzzles(self, rng: Random, split: Split) -> Iterator[Puzzle]:
        """Yield solvable puzzles: a uniform target, and uniform numbers among those that reach it.

        Numbers wait in queues by count and target, so that one search serves every target they reach.
        """
        queues: dict[tuple[int, int], deque[tuple[int, ...]]] = defaultdict(deque)
        values, targets = range(1, self._config.max_number + 1), set(self._targets)
        sizes = self._train_sizes if split == "train" else (self._config.numbers,)
        while True:
            size = rng.choice(sizes) if len(sizes) > 1 else sizes[0]
            keep = _KEEP[size] if split == "train" else 1.0
            target = rng.choice(self._targets)
            while not queues[size, target]:
                numbers = tuple(rng.choices(values, k=size))
                for value in sorted(targets & reachable(tuple(sorted(numbers)))):
                    if len(queues[size, value]) < _QUEUE and (keep == 1.0 or rng.random() < keep):
                        queues[size, value].append(numbers)
            yield queues[size, target].popleft(), target

    @cached_property
    def _training_file(self) -> list[Problem]:
        assert self._config.train_file is not None
        return read_training_file(self._config.train_file, self._may_train)

    def _may_train(self, problem: Problem) -> bool:
        if _INPUT.fullmatch(problem.prompt.rstrip(":")) is None:
            return False
        puzzle = read_prompt(problem.prompt)
        return len(puzzle[0]) in self._train_sizes and self._split_of(puzzle) == "train"

    def _split_of(self, puzzle: Puzzle) -> Split | None:
        key = _key(puzzle)
        held_out, targets = self._held_out
        if key in held_out or puzzle[1] in targets:
            return None
        return split_by_hash(f"{self.name}/{key}")

    @cached_property
    def _held_out(self) -> tuple[set[Puzzle], set[int]]:
        """(Sorted numbers, target) pairs and whole targets that the test files keep out of training."""
        problems = self._file_problems if self._config.test_file is not None else []
        problems = problems + [
            problem for path in self._config.hold_out_files for problem in read_public_file(path)
        ]
        puzzles = [read_prompt(problem.prompt) for problem in problems]
        targets = {target for _, target in puzzles} if self._config.hold_out_targets else set()
        if targets >= set(self._targets):
            files = (self._config.test_file, *self._config.hold_out_files)
            names = " and ".join(str(path) for path in files if path is not None)
            raise ConfigError(
                f"every target occurs in {names}, so none is left for training; "
                "set task.hold_out_targets to false"
            )
        return set(map(_key, puzzles)), targets

    @cached_property
    def _file_problems(self) -> list[Problem]:
        assert self._config.test_file is not None
        return read_public_file(self._config.test_file, self._config.numbers)


def read_prompt(prompt: str) -> Puzzle:
    """Return the numbers and the target of `15,44,79,50:`."""
    *numbers, target = map(int, prompt.rstrip(":").split(","))
    return tuple(numbers), target


def solves(puzzle: Puzzle, response: str) -> bool:
    """Whether `response` is a right chain that uses every number and ends at the target."""
    *steps, last = response.split(",")
    texts = [*(step + "," for step in steps), last]
    return len(texts) == len(puzzle[0]) - 1 and all(_truth(puzzle, texts))


def read_public_file(path: Path, numbers: int | None = None) -> list[Problem]:
    """Return the problems of a public test file, each with the file's own solution as its trace.

    Raises:
        DataError: the file cannot be read, or a row is not a solved puzzle (of that many numbers).
    """
    # Grader processes never come here and need no reader of files.
    from airls_ray.data.row_files import json_rows

    problems = [_read_row(where, row, numbers) for where, row in json_rows(path)]
    if not problems:
        raise DataError(f"the Countdown test file {path} has no problems")
    return problems


def _read_row(where: str, fields: Any, numbers: int | None) -> Problem:
    if isinstance(fields, DataError):
        raise fields
    for name in ("input", "output"):
        if not isinstance(fields, dict) or not isinstance(fields.get(name), str):
            raise DataError(f"{where}: field {name!r} is missing or not text")
    if not _INPUT.fullmatch(fields["input"]):
        raise DataError(f"{where}: field 'input' must be numbers and the target, like 15,44,79,50")
    prompt, trace = fields["input"] + ":", fields["output"]
    given, target = read_prompt(prompt)
    if numbers is not None and len(given) != numbers:
        raise DataError(f"{where}: field 'input' has {len(given)} numbers, but task.numbers is {numbers}")
    problem = Problem(content_id("countdown", prompt), prompt, str(target), (trace,))
    if not solves((given, target), trace):
        raise DataError(f"{where}: field 'output' is not a solution of the puzzle")
    return problem


def _key(puzzle: Puzzle) -> Puzzle:
    """Return the puzzle with its numbers sorted: what counts as the same puzzle."""
    return tuple(sorted(puzzle[0])), puzzle[1]


def _canonical_step(text: str) -> str:
    """Return the step with the operands of + and * in ascending order."""
    match = _STEP.fullmatch(text)
    assert match is not None
    left, operator, right, result = match.groups()
    if operator in "+*" and int(left) > int(right):
        left, right = right, left
    return f"{left}{operator}{right}={result}"


def _truth(puzzle: Puzzle, steps: Sequence[str]) -> list[bool]:
    pool: list[int] | None = list(puzzle[0])
    truth = []
    for text in steps:
        pool = _after(pool, text, puzzle[1]) if pool is not None else None
        truth.append(pool is not None)
    return truth


def _after(pool: list[int], text: str, target: int) -> list[int] | None:
    """Return what is available after a right step (see `step_truth`), or None after a wrong one."""
    match = _STEP.fullmatch(text.removesuffix(","))
    if match is None:
        return None
    left, right, result = int(match.group(1)), int(match.group(3)), int(match.group(4))
    rest = list(pool)
    for number in (left, right):
        if number not in rest:
            return None
        rest.remove(number)
    if text.endswith(",") != bool(rest) or not _arithmetic_holds(left, match.group(2), right, result):
        return None
    rest.append(result)
    return rest if solvable(tuple(sorted(rest)), target) else None


def _arithmetic_holds(left: int, operator: str, right: int, result: int) -> bool:
    if result > LARGEST_RESULT:
        return False
    if operator == "+":
        return left + right == result
    if operator == "-":
        return left - right == result
    if operator == "*":
        return left * right == result
    return right != 0 and left == right * result


TASK = CountdownTask
