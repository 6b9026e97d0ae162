"""What became of a program: read from the lines of the tests' process and from how both processes ended."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airls_ray.grading.sandbox.asserts import known_verdicts
from airls_ray.grading.sandbox.limits import Limits
from airls_ray.grading.sandbox.program import EXCEPTION_EXIT, MEMORY_EXIT, SYNTAX_EXIT
from airls_ray.grading.sandbox.supervise import Ended

_EXIT_REASONS = {SYNTAX_EXIT: "syntax_error", EXCEPTION_EXIT: "exception", MEMORY_EXIT: "memory"}


@dataclass(frozen=True)
class Verdict:
    """What became of a program. `reason`: "graded" if it passed everything, else why it did not."""

    reason: str
    passed: int
    """Tests that passed; 0 where a text of asserts did not end and nobody can say how many it has."""
    total: int
    """Tests that ran, or that there are, whichever is more."""
    message: str = ""
    """Of the first failure, for people; the program may have chosen its words."""

    @property
    def right(self) -> bool:
        """Whether all tests passed."""
        return self.reason == "graded"


def read_verdict(ended: Ended, data: bytes, form: str, tests: Sequence[Any], limits: Limits) -> Verdict:
    """Make a verdict of what the tests' process wrote (`data`) and of how both processes ended."""
    lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
    decided = [line for line in lines if "passed" in line]
    counts = _counts_of_texts(lines, tests) if form == "assert" else _counts(decided, len(tests))
    failures = [line for line in decided if not line["passed"]]
    if failures:
        return Verdict(failures[0]["reason"], *counts, failures[0].get("message", ""))
    if lines and "finished" in lines[-1]:
        return Verdict("graded" if decided else "no_test_ran", *counts)
    program, judge = ended.reports
    last = lines[-1] if lines and "ended" in lines[-1] else {}
    if ended.too_much_output:
        reason: str | None = "output_limit"
    elif last.get("ended") == "ended_early":
        reason = why_ended(ended, program, limits)
    elif last:
        reason = last["ended"]
    else:
        reason = why_ended(ended, judge, limits)
        reason = "judge_failed" if reason in (None, "ended_early") else reason
    return Verdict(reason or "ended_early", *counts, last.get("message", ""))


def _counts(decided: Sequence[dict[str, Any]], least: int) -> tuple[int, int]:
    """Return how many tests passed, and how many there are: no fewer than `least`."""
    return sum(line["passed"] for line in decided), max(least, len(decided))


def _counts_of_texts(lines: Sequence[dict[str, Any]], tests: Sequence[str]) -> tuple[int, int]:
    """Return how many asserts passed, and how many there are.

    A program can end, hang or raise when it likes, so of a text that did not run to its end the asserts that
    were not reached count as failed. Where loops hide how many these are, nothing has passed.
    """
    passed = total = 0
    hidden = False
    waiting = list(tests)
    decided: list[dict[str, Any]] = []
    for line in [*lines, *({"whole": False} for _ in tests)]:
        if "passed" in line:
            decided.append(line)
        elif "whole" in line and waiting:
            text = waiting.pop(0)
            more, there = _counts(decided, 0)
            if not line["whole"]:
                known = known_verdicts(text)
                hidden = hidden or known is None
                there = max(there, known or 0, more + 1)
            passed, total = passed + more, total + there
            decided.clear()
    return (0 if hidden else passed), max(total, len(tests))


def why_ended(ended: Ended, report: dict[str, Any], limits: Limits) -> str | None:
    """Return the reason for the end of a process, None if it ended by itself with exit code 0."""
    if ended.too_much_output:
        return "output_limit"
    if ended.timed_out:
        return "timeout"
    if "status" not in report:  # it was killed when its tests were over
        return None
    code = os.waitstatus_to_exitcode(report["status"])
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and report["cpu"] >= limits.cpu_seconds - 0.5:
        return "timeout"
    if code == -signal.SIGXFSZ:
        return "output_limit"
    return None if code == 0 else _EXIT_REASONS.get(code, "ended_early" if code > 0 else "crashed")
