"""Tasks of a user's own: a class with `grade` and either `problem` or `problems`; the rest has defaults.

What the class gives is taken in the forms that are natural to write, and checked where it comes from: a
problem may be a mapping or `(prompt, answer)`, a verdict a number or `(number, answer)`.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any

from airls_ray.doors import Kind
from airls_ray.errors import DataError, DoorError
from airls_ray.own_code import keywords_of
from airls_ray.tasks.base import Grade, Problem, Split
from airls_ray.tasks.generate import Generator, content_id, split_by_hash

_FIELDS = ("prompt", "answer", "traces", "details", "problem_id")


class _Defaults:
    """What a task may leave out."""

    step_delimiter = "\n"

    def vocabulary(self) -> list[str] | None:
        """The model's own tokenizer is used."""
        return None

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> Sequence[bool] | None:
        """Nothing is known of single steps."""
        return None


class _Frame:
    """Stands before the user's class: calls its methods, and checks what they return."""

    name: str
    _size: int

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: without end (train) or up to the size of the set (test).

        Raises:
            DataError: what was yielded is no problem, or the training problems end.
        """
        theirs = getattr(super(), "problems", None)
        if theirs is None:
            return self._drawn(split, seed, start)
        return self._yielded(theirs, split, seed, start)

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge a response.

        Raises:
            ValueError: the verdict is none.
        """
        return grade_of(super().grade(problem, response))  # type: ignore[misc]

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool] | None:
        """Whether each step is right; None: unknown.

        Raises:
            ValueError: there is another number of verdicts than of steps.
        """
        truth = super().step_truth(problem, steps)  # type: ignore[misc]
        if truth is None:
            return None
        if len(truth) != len(steps):
            raise ValueError(f"step_truth returned {len(truth)} verdicts on {len(steps)} steps")
        return [bool(one) for one in truth]

    def _drawn(self, split: Split, seed: int, start: int) -> Iterator[Problem]:
        """From `problem(rng)`: the hash of a prompt decides its split, so no seed mixes them."""

        def candidates(rng: Random, _: Split) -> Iterator[str]:
            while True:
                one = problem_of(self.problem(rng), self.name)  # type: ignore[attr-defined]
                yield json.dumps([one.prompt, one.answer, one.traces, one.details, one.problem_id])

        def build(text: str) -> Problem:
            prompt, answer, traces, details, identity = json.loads(text)
            return Problem(identity, prompt, answer, tuple(traces), details)

        generator = Generator(candidates, lambda text: split_by_hash(json.loads(text)[0]), build)
        if split == "train":
            return generator.train(seed, start)
        return islice(generator.test(self._size), start, None)

    def _yielded(self, theirs: Any, split: Split, seed: int, start: int) -> Iterator[Problem]:
        if "start" in inspect.signature(theirs).parameters:
            drawn = iter(theirs(split=split, seed=seed, start=start))
        else:
            drawn = islice(theirs(split=split, seed=seed), start, None)
        end = max(self._size - start, 0) if split == "test" else None
        number = start
        for one in islice(drawn, end):
            number += 1
            yield problem_of(one, self.name)
        if split == "train":
            raise DataError(
                f"the training problems of the task {self.name} end after {number}: yield them without end "
                "(itertools.cycle), or give the class `problem(rng)` instead of `problems`"
            )


def problem_of(given: Any, task: str) -> Problem:
    """Return what a task of the user's own calls a problem as one.

    Args:
        given: a `Problem`, `(prompt, answer)`, or a mapping with `prompt`, `answer` and maybe `traces`
            (a text or a list), `details` and `problem_id`; further keys join the details.
        task: for sentences, and in identifiers, which else come from the content.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(given, Problem):
        given = {name: getattr(given, name) for name in _FIELDS}
    elif isinstance(given, tuple) and len(given) == 2:
        given = dict(zip(_FIELDS, given, strict=False))
    if not isinstance(given, Mapping) or not {"prompt", "answer"} <= given.keys():
        raise DataError(
            f"the task {task} gave {given!r:.80} as a problem: it must be a Problem, (prompt, answer), or a "
            "mapping with prompt and answer"
        )
    prompt, answer, traces = given["prompt"], given["answer"], given.get("traces") or ()
    traces = [traces] if isinstance(traces, str) else list(traces)
    wrong = [one for one in (prompt, *traces) if not isinstance(one, str) or not one.strip()]
    if wrong or not isinstance(answer, str | int | float):
        raise DataError(
            f"the task {task} gave a problem whose {'answer' if not wrong else 'prompt or trace'} is "
            f"{(wrong or [answer])[0]!r:.60}, and it must be text"
        )
    details = {**(given.get("details") or {}), **{k: v for k, v in given.items() if k not in _FIELDS}}
    try:
        details = json.loads(json.dumps(details, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the details of the problem {prompt[:40]!r} of the task {task} cannot be written as JSON, in "
            f"which they go to the graders ({error})"
        ) from None
    identity = given.get("problem_id") or content_id(task, json.dumps([prompt, str(answer)]))
    return Problem(str(identity), prompt, str(answer), tuple(traces), details)


def grade_of(given: Any) -> Grade:
    """Return a verdict as a `Grade`: from one, a number, or `(number, answer)`.

    Raises:
        ValueError: the outcome is no number from 0 to 1.
    """
    if isinstance(given, Grade):
        outcome, answer, reason = given.outcome, given.answer, given.reason
    else:
        outcome, answer = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        reason = "graded"
    try:
        number = float(outcome)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:  # NaN, too
        raise ValueError(f"grade returned {given!r:.60}, and an outcome is a number from 0 to 1")
    return Grade(number, None if answer is None else str(answer), reason)


def make_own_task(found: Any, options: Mapping[str, Any]) -> Any:
    """Return a task of the class that a door names, made with the options.

    `test_problems`, the size of the test set, is taken out of the options unless the class names it.

    Raises:
        DoorError: it is no class, lacks a method, or takes not all of the options.
    """
    if not inspect.isclass(found):
        raise DoorError(f"is {found!r:.40}, and a task is a class")
    if not callable(getattr(found, "grade", None)):
        raise DoorError("has no method grade(problem, response)")
    if not callable(getattr(found, "problems", None)) and not callable(getattr(found, "problem", None)):
        raise DoorError("has neither problem(rng) nor problems(split, seed, start)")
    size, given = int(options.get("test_problems", 500)), dict(options)
    if "test_problems" not in keywords_of(found, {}).named:
        given.pop("test_problems", None)
    keywords_of(found, given)
    made = type(found.__name__, (_Frame, found, _Defaults), {"__module__": found.__module__})(**given)
    made._size = size
    if not isinstance(getattr(made, "name", None), str):
        made.name = found.__name__.lower()
    return made


TASK = Kind(
    name="task",
    protocol=(
        "a class with grade(problem, response), which returns an outcome in [0, 1] or (outcome, answer), and "
        "problem(rng), which returns {prompt, answer, traces}, or problems(split, seed, start)"
    ),
    package="airls_ray.tasks.families",
    attribute="TASK",
    example="examples/own_task.py",
    make=make_own_task,
)
"""Tasks (`task`)."""
