"""A task or grader of the user's own, tried before anything is spent: problems, verdicts, truth of steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from airls_ray.config.task_choice import OwnTaskConfig, to_graders
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.errors import DataError, DoorError
from airls_ray.grading.pool import GradeRequest, GraderPool
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem, Split, Task
from airls_ray.text.make_tokenizer import check_spelling
from airls_ray.text.steps import cut, rule_of

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

_PROBLEMS = 3
_COMPARED = 100
"""Problems of each split that are drawn to compare the splits."""
_WRONG = "I do not know."
_GRADED = 5.0
"""Seconds: longest time of one verdict here."""
_NO_VERDICT = {"timeout": f"gave no verdict within {_GRADED:g} s", "crashed": "ended its process"}


def try_task(config: Config) -> None:
    """Draw problems of a task of the user's own, and let it judge right, wrong and empty responses.

    Raises:
        DataError: what it gives is no problem.
        DoorError: it does not open; its splits share a problem, or a seed gives other problems the next time;
            or there is no verdict on a response, whose traceback is logged.
    """
    assert isinstance(config.task, OwnTaskConfig)
    name = config.task.name
    train, again, test = (_drawn(make_task(config.task), split, 0) for split in ("train", "train", "test"))
    if train != again:
        raise DoorError(
            f"task.name: {name} gives other problems for the same seed, so that no run could be repeated or "
            "resumed: draw by the given `rng` or `seed` alone"
        )
    shared = {one.prompt for one in train} & {one.prompt for one in test}
    if shared:
        raise DoorError(
            f"task.name: {name} has the problem {min(shared)[:60]!r} in training and test: keep the splits "
            "apart, or give the class `problem(rng)` instead of `problems`, whose splits are"
        )
    _require_words(config, train)
    _try_verdicts(config, f"task.name: {name}")


def try_grader(config: Config) -> None:
    """Let a grader of the user's own judge right, wrong and empty responses.

    Raises:
        DataError: the problems of the task cannot be read.
        DoorError: it does not open, or there is no verdict on a response, whose traceback is logged.
    """
    assert isinstance(config.task, FileTaskConfig)
    _try_verdicts(config, f"task.grader: {config.task.grader.name}")


def _try_verdicts(config: Config, named: str) -> None:
    samples = list(sample_responses(config))
    requests = [
        GradeRequest(problem.prompt, problem.answer, json.dumps(problem.details), response, steps)
        for problem, response, _, steps in samples
    ]
    with GraderPool(to_graders(config.task), 1, _GRADED, largest_chunk=1) as pool:
        for request in requests:
            (result,) = pool.grade([request])
            if result.status not in ("raised", *_NO_VERDICT):
                continue
            said = [text for text in pool.complaints() if "Traceback" in text]  # they are logged
            why = _NO_VERDICT.get(result.status) or f"raised {_last_line(said)}"
            raise DoorError(
                f"{named} {why} on the response {request.response[:40]!r} to "
                f"{request.prompt[:40]!r}: every response must get a verdict, right, wrong or empty"
            )


def sample_responses(config: Config) -> Iterator[tuple[Problem, str, float, list[str]]]:
    """Yield responses that a policy might give to the first training problems, a trace or the answer, a wrong
    one and an empty one: problem, response, whether it is right, steps."""
    task = make_task(config.task)
    for problem in islice(task.problems("train", derive_seed(config.seed, "problems")), _PROBLEMS):
        right = problem.traces[0] if problem.traces else problem.answer
        for response, correct in ((right, 1.0), (_WRONG, 0.0), ("", 0.0)):
            yield problem, response, correct, steps_of(task, response)


def steps_of(task: Task, text: str) -> list[str]:
    """Cut a trace as the task does, but for what depends on tokens."""
    ends = [0, *cut(text, rule_of(task)), len(text)]
    return [text[start:end] for start, end in pairwise(ends) if text[start:end].strip()]


def _require_words(config: Config, problems: list[Problem]) -> None:
    """A model made from nothing must be able to write what it reads and learns, to the letter."""
    words = make_task(config.task).vocabulary()
    if words is None or config.model.path is not None:
        return
    for problem in problems:
        for text in (problem.prompt, *problem.traces):
            try:
                check_spelling(text, words)
            except DataError as error:
                raise DoorError(f"task.name: {config.task.name}: {error}") from None


def _drawn(task: Task, split: Split, seed: int) -> list[Problem]:
    return list(islice(task.problems(split, seed), _COMPARED))


def _last_line(traces: list[str]) -> str:
    return traces[-1].strip().splitlines()[-1] if traces else "an error"
