"""The child process of a grader pool: reads requests, writes a verdict per line.

Started as `python -m airls_ray.grading.worker --deadline-seconds S --memory-gib M`. Standard input: the
task's section as one line of JSON (`to_graders`), then one line per chunk, a list of
`[prompt, answer, details, response, steps]`. Standard output: `ready` (or the traceback of why not, as a JSON
string), then one line per response, `[outcome, answer, step_truth, reason, traceback]`, written at once, so
that the parent knows which response a dead or hanging child was working on. A grader that raises has given no
verdict: outcome 0, reason "raised", and the traceback, which is null otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any

from airls_ray.tasks.base import NeedsWarmUp, Problem, Task

_CPU_MARGIN_SECONDS = 5
RAISED = "raised"


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
    try:
        task = make(requests.readline().decode())
        if isinstance(task, NeedsWarmUp):
            task.warm_up()
    except Exception:  # hides nothing: the parent is told of it, and this process ends with it
        _write(output, json.dumps(traceback.format_exc()).encode() + b"\n")
        raise
    _write(output, b"ready\n")
    for line in requests:
        items = json.loads(line)
        _limit_cpu(len(items) * options.deadline_seconds)
        for item in items:
            _write(output, _verdict(task, item) + b"\n")


Verdict = tuple[float, str | None, list[bool] | None, str, str | None]


def _verdict(task: Task, item: list[Any]) -> bytes:
    """One line; a grader's own error is its verdict, and the process lives on (without memory it ends)."""
    try:
        return json.dumps(judge(task, item)).encode()
    except MemoryError:
        raise
    except Exception:  # whatever a grader raises: its traceback goes to the parent, which says it once
        return json.dumps((0.0, None, None, RAISED, traceback.format_exc())).encode()


def judge(task: Task, item: list[Any]) -> Verdict:
    """Return the outcome, the canonical answer, the truth of the steps and the reason of one request, in
    Python's own types (and null for the traceback)."""
    prompt, answer, details, response, steps = item
    problem = Problem("", prompt, answer, (), json.loads(details))
    grade = task.grade(problem, response)
    found = None if grade.answer is None else str(grade.answer).encode("utf-8", "replace").decode()
    truth = task.step_truth(problem, steps)
    return (
        float(grade.outcome),
        found,
        None if truth is None else [bool(one) for one in truth],
        str(grade.reason),
        None,
    )


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


def _make_task(text: str) -> Task:
    from airls_ray.config.task_choice import from_parent
    from airls_ray.tasks import make_task

    return make_task(from_parent(text))


if __name__ == "__main__":
    serve(_make_task)
