"""Whether a task's grader can read the answers of its problems, and what it says of their traces."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from airls_ray.config.task_choice import TaskConfig, runs_programs, to_graders
from airls_ray.config.task_doors import GraderConfig
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.grading.pool import LARGEST_CHUNK, GradeRequest, GradeResult, GraderPool
from airls_ray.tasks.base import Problem
from airls_ray.tasks.grader_kind import Grader

CONVERTED_BY = GraderConfig(name="math")
"""What `airls-ray data convert` grades by."""
_LOST = ("timeout", "crashed")


@dataclass(frozen=True)
class Effort:
    """How much is graded; by default everything."""

    problems: int | None = None
    """Most problems; which ones is drawn by `seed`."""
    seconds: float | None = None
    """Time after which no more are begun."""
    seed: int = 0
    traces: bool = True
    """Whether traces are looked at, too."""
    processes: int = 1
    deadline_seconds: float = 10.0
    """Of one response."""


@dataclass
class Judged:
    """What the grader said; each list holds a sentence for each case."""

    problems: int = 0
    """How many were looked at."""
    traces: int = 0
    unreadable: list[str] = field(default_factory=list)
    """Answers that the grader cannot read."""
    unequal: list[str] = field(default_factory=list)
    """Answers that do not grade as equal to themselves."""
    wrong_traces: list[str] = field(default_factory=list)
    """Traces that grade wrong although the answer of their row can be read."""
    lost_traces: list[str] = field(default_factory=list)
    """Traces without a verdict."""
    wrong: list[tuple[str, int]] = field(default_factory=list)
    """Identifier and position of each trace of `wrong_traces`."""


def judge_problems(
    task: TaskConfig,
    problems: Sequence[Problem],
    places: Mapping[str, str],
    effort: Effort,
    shown: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Grade the problems' own answers and traces, in child processes with deadlines.

    Args:
        task: whose grader.
        problems: each once.
        places: where each was read, by its identifier.
        effort: how much.
        shown: told how many more problems are done.

    Raises:
        RunError: a grader process cannot be started.
    """
    chosen = list(problems)
    if effort.problems is not None and effort.problems < len(chosen):
        rows = sorted(Random(effort.seed).sample(range(len(chosen)), effort.problems))
        chosen = [chosen[row] for row in rows]
    judged = Judged()
    begun = time.monotonic()
    largest = 1 if runs_programs(task) else LARGEST_CHUNK
    chunk = effort.processes * largest
    with GraderPool(
        to_graders(task),
        effort.processes,
        effort.deadline_seconds,
        largest_chunk=largest,
    ) as pool:
        for start in range(0, len(chosen), chunk):
            if effort.seconds is not None and time.monotonic() - begun > effort.seconds:
                break
            part = chosen[start : start + chunk]
            _judge(judged, task, part, places, effort.traces, pool)
            shown(len(part))
    return judged


def stated_answer(task: TaskConfig, problem: Problem) -> str | None:
    """Return a response that states the problem's own answer, or None where no answer is compared as text or
    as mathematics (letters, programs, chains of a built-in task), or by a grader that is not opened here."""
    if not isinstance(task, FileTaskConfig) or {"permutation", "tests"} & problem.details.keys():
        return None
    if task.grader.is_foreign:
        return None
    return _built_in(task.grader).states(problem.answer, task.answer_marker)


@lru_cache(maxsize=8)
def _built_in(grader: GraderConfig) -> Grader:
    return grader.grader()


def _judge(
    judged: Judged,
    task: TaskConfig,
    problems: Sequence[Problem],
    places: Mapping[str, str],
    traces: bool,
    pool: GraderPool,
) -> None:
    items: list[tuple[Problem, int | None]] = []  # None: the own answer, which comes before the traces
    requests = []
    for problem in problems:
        stated = stated_answer(task, problem)
        responses: list[tuple[int | None, str]] = [] if stated is None else [(None, stated)]
        responses += enumerate(problem.traces) if traces else ()
        for number, response in responses:
            items.append((problem, number))
            requests.append(
                GradeRequest(problem.prompt, problem.answer, json.dumps(problem.details), response)
            )
    judged.problems += len(problems)
    unsure: set[str] = set()
    for (problem, number), result in zip(items, pool.grade(requests), strict=True):
        where = places[problem.problem_id]
        if number is None:
            if not _takes_answer(judged, where, problem, result):
                unsure.add(problem.problem_id)
            continue
        judged.traces += 1
        if problem.problem_id not in unsure:
            _take_trace(judged, where, problem, number, result)


def _takes_answer(judged: Judged, where: str, problem: Problem, result: GradeResult) -> bool:
    """Whether the grader knows an answer for itself."""
    answer = problem.answer[:60]
    if result.status != "graded":
        judged.unreadable.append(f"{where}: the answer {answer!r} cannot be parsed ({result.status})")
    elif result.outcome < 1:
        judged.unequal.append(f"{where}: the answer {answer!r} does not grade as equal to itself")
    return result.status == "graded" and result.outcome == 1


def _take_trace(judged: Judged, where: str, problem: Problem, number: int, result: GradeResult) -> None:
    which = f"{where}: trace {number + 1}" if len(problem.traces) > 1 else f"{where}: the trace"
    if result.status in _LOST:
        judged.lost_traces.append(f"{which} could not be graded ({result.status})")
    elif result.outcome < 1:
        judged.wrong.append((problem.problem_id, number))
        if "tests" in problem.details:
            said = f"does not pass the tests ({result.status})"
        elif result.answer is None:
            said = f"states no answer that the grader finds; that of the row is {problem.answer[:60]!r}"
        else:
            said = f"ends in {result.answer[:60]!r}, but the answer of the row is {problem.answer[:60]!r}"
        judged.wrong_traces.append(f"{which} {said}")
