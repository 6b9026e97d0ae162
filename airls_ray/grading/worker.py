"""The child process of a grader pool: reads requests, writes a verdict per line.

Started as `python -m airls_ray.grading.worker --deadline-seconds S --memory-gib M`. Standard input: the
task's configuration as one line of JSON, then one line per chunk, a list of
`[prompt, answer, details, response, steps]`. Standard output: `ready`, then one line per response,
`[outcome, answer, step_truth, reason]`, written at once, so that the parent knows which response a dead or
hanging child was working on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from airls_ray.tasks.base import Problem, Task

_CPU_MARGIN_SECONDS = 5


@runtime_checkable
class NeedsWarmUp(Protocol):
    """A task whose grader imports or compiles something at its first use."""

    def warm_up(self) -> None:
        """Do that now."""
        ...


def serve(make: Callable[[str], Task]) -> None:
    """Grade what comes on standard input until it closes; `make` builds the task from its configuration."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--deadline-seconds", type=float, required=True)
    arguments.add_argument("--memory-gib", type=float, required=True)
    options = arguments.parse_args()
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a grader prints must not get between the verdicts
    _limit_memory(options.memory_gib)
    requests = sys.stdin.buffer
    task = make(requests.readline().decode())
    if isinstance(task, NeedsWarmUp):
        task.warm_up()
    _write(output, b"ready\n")
    for line in requests:
        items = json.loads(line)
        _limit_cpu(len(items) * options.deadline_seconds)
        for item in items:
            _write(output, json.dumps(judge(task, item)).encode() + b"\n")


def judge(task: Task, item: list[Any]) -> tuple[float, str | None, list[bool] | None, str]:
    """Return the outcome, the canonical answer, the truth of the steps and the reason of one request."""
    prompt, answer, details, response, steps = item
    problem = Problem("", prompt, answer, (), json.loads(details))
    grade = task.grade(problem, response)
    return grade.outcome, grade.answer, task.step_truth(problem, steps), grade.reason


def _limit_memory(gib: float) -> None:
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    """Allow `seconds` more of CPU time: the end of a child that hangs after its parent died."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + _CPU_MARGIN_SECONDS
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _write(output: int, data: bytes) -> None:
    while data:
        data = data[os.write(output, data) :]


def _make_task(config: str) -> Task:
    from pydantic import TypeAdapter

    from airls_ray.config.schema import TaskConfig
    from airls_ray.tasks import make_task

    return make_task(TypeAdapter(TaskConfig).validate_json(config))


if __name__ == "__main__":
    serve(_make_task)
