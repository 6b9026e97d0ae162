"""A pool of grader processes: every response has a hard deadline, and no grader can take others down.

A response whose child hangs or dies is lost (outcome 0, status "timeout" or "crashed"), and no other one. A
grader that raises has given no verdict on that response (outcome 0, status "raised"), and its traceback is
told once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airls_ray.errors import RunError
from airls_ray.grading.child_pool import START_SECONDS, ChildPool, Lost

LARGEST_CHUNK = 64
"""Responses per line to a child: amortises the system calls."""


@dataclass(frozen=True)
class GradeRequest:
    """One response to judge; `details` is the problem's JSON, `steps` the texts of the steps.

    `open_thought` is what the prompt ends in where that opens a thought (`TextCodec.open_thought`): graders
    read it before the response.
    """

    prompt: str
    answer: str
    details: str
    response: str
    steps: Sequence[str] = ()
    open_thought: str = ""


@dataclass(frozen=True)
class GradeResult:
    """Verdict: outcome in [0, 1], canonical answer, truth per step (None: unknown), and how it ended."""

    outcome: float
    answer: str | None
    step_truth: list[bool] | None
    status: str
    """"graded" or the reason that the task gives; without a verdict "timeout", "crashed" or "raised"."""


class GraderPool(ChildPool[GradeRequest, GradeResult]):
    """Child processes that grade; see the module's docstring. Not for use by several threads at once."""

    what = "grader"

    def __init__(
        self,
        task_config_json: str,
        processes: int,
        deadline_seconds: float,
        *,
        memory_gib: float = 4.0,
        start_deadline_seconds: float = START_SECONDS,
        largest_chunk: int = LARGEST_CHUNK,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start the children without waiting for them.

        Args:
            task_config_json: the task's configuration, as the child reads it.
            processes: number of children.
            deadline_seconds: longest time for one response.
            memory_gib: address space of a child.
            start_deadline_seconds: longest time for a child to be ready.
            largest_chunk: most responses that a child is given at once; 1 where one may take seconds, so that
                none waits behind it while another child is idle.
            command: what to start instead of this package's worker.
        """
        super().__init__(
            [
                *(command or (sys.executable, "-m", "airls_ray.grading.worker")),
                f"--deadline-seconds={deadline_seconds}",
                f"--memory-gib={memory_gib}",
            ],
            task_config_json,
            processes,
            deadline_seconds,
            start_deadline_seconds=start_deadline_seconds,
            largest_chunk=largest_chunk,
        )

    def grade(self, items: Sequence[GradeRequest]) -> list[GradeResult]:
        """Judge `items` and return their results in the same order.

        Raises:
            RunError: a child cannot be started, an outcome is no number from 0 to 1, or the pool is closed.
        """
        return self.work(items)

    def encode(self, item: GradeRequest) -> list[Any]:
        """Return the request as the child reads it."""
        response = item.open_thought + item.response
        return [item.prompt, item.answer, item.details, response, list(item.steps)]

    def decode(self, item: GradeRequest, line: Any) -> GradeResult:
        """Return the verdict of a child's line.

        Raises:
            RunError: the outcome is no number from 0 to 1.
        """
        outcome, answer, truth, reason, trace = line
        if trace is not None:
            self.complain("the grader raised an error, and such responses count as wrong", trace)
        if not 0.0 <= outcome <= 1.0:  # NaN, too
            raise RunError(
                f"the grader gave the outcome {outcome} for a response to {item.prompt[:80]!r}, and an "
                "outcome is a number from 0 to 1: correct the grader"
            )
        return GradeResult(outcome, answer, truth, reason)

    def lost(self, item: GradeRequest, why: Lost) -> GradeResult:
        """Return outcome 0: a response without a verdict."""
        return GradeResult(0.0, None, None, why)
