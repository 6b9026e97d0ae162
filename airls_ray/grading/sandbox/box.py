"""Programs and their tests in, verdicts out."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from airls_ray.errors import ConfigError, ProcessLost
from airls_ray.grading.sandbox.handle import NurseryHandle
from airls_ray.grading.sandbox.limits import InForce, Limits, Protection
from airls_ray.grading.sandbox.supervise import open_stream, supervise
from airls_ray.grading.sandbox.text_compare import same_text
from airls_ray.grading.sandbox.verdicts import Verdict, read_verdict, why_ended

PRELOAD = (
    *(
        "typing",
        "math",
        "cmath",
        "collections",
        "itertools",
        "functools",
        "operator",
        "re",
        "string",
        "bisect",
    ),
    *(
        "heapq",
        "random",
        "copy",
        "statistics",
        "datetime",
        "decimal",
        "fractions",
        "hashlib",
        "json",
        "queue",
    ),
)
"""Modules that most programs import; every program then finds them loaded."""

_VERDICT_BYTES = 1 << 24


@dataclass(frozen=True)
class Exam:
    """What a program is put to; `tests` depend on `form`.

    call: objects with `arguments`, `expected` and perhaps `keywords` and `in_place`; assert: texts of Python;
    stdin: objects with `input` and `output`.
    """

    form: Literal["call", "assert", "stdin"]
    tests: Sequence[Any]
    entry_point: str = ""
    """The function, or `Class.method`, that is called; asserts find it as `candidate` too."""
    names: Sequence[str] = ()
    """What else asserts take from the program; every other name is their own or Python's."""
    setup: str = ""
    """Python that runs before asserts, on their side."""
    prefix: str = ""
    """Python that runs before the program, on its side."""
    tolerance: float = 0.0
    """Largest relative or absolute difference of numbers."""
    stop: bool = True
    """End at the first test that fails."""
    test_seconds: float | None = None
    """Longest time of one test that reads standard input, within the limits of all."""
    decimals: bool = False
    """Whether lines of numbers are the same if their values are: 1.0 and 1."""


class Sandbox:
    """Two nurseries, one for programs and one for tests; judges one program at a time.

    It must be closed, or dropped, by the thread that made it.
    """

    def __init__(
        self,
        limits: Limits,
        require: Sequence[Protection] = ("network", "files", "processes"),
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        """Start both nurseries and wait for them.

        Raises:
            ConfigError: a required protection is not in force on this machine.
            RunError: a nursery does not start.
        """
        self.limits = limits
        self._preload = tuple(preload)
        self._nurseries: list[NurseryHandle] = []
        self._finalizer = weakref.finalize(self, _close_all, self._nurseries)
        self._nurseries += [NurseryHandle(self._preload) for _ in range(2)]
        self.in_force: InForce = self._ready()
        missing = self.in_force.missing(require)
        if missing:
            self.close()
            raise ConfigError(
                f"task.sandbox.require asks for protection of {', '.join(missing)}, which this machine "
                f"does not give ({self.in_force}); allow it (docs/code_grader.md) or take it out of the list"
            )

    def close(self) -> None:
        """End all processes; harmless when done twice."""
        self._finalizer()

    def __enter__(self) -> Sandbox:
        """Return the sandbox itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def judge(self, source: str, exam: Exam) -> Verdict:
        """Put the program `source` to `exam` within `limits.wall_seconds` for all tests together.

        Raises:
            RunError: a program could not be shut in, or a nursery cannot be started again.
        """
        deadline = time.monotonic() + self.limits.wall_seconds
        try:
            if exam.form == "stdin":
                return self._judge_whole(source, exam, deadline)
            return self._judge_calls(source, exam, deadline)
        except ProcessLost as error:
            self._restart()
            return Verdict("crashed", 0, len(exam.tests), str(error))

    def run(self, source: str) -> tuple[str | None, str]:
        """Run the program `source` within `limits.wall_seconds`; nothing is compared.

        Returns:
            Why it failed (None: it did not), and what it wrote to its standard output.

        Raises:
            RunError: as of `judge`.
        """
        try:
            return self._run_whole(source, "", "", time.monotonic() + self.limits.wall_seconds)
        except ProcessLost:
            self._restart()
            return "crashed", ""

    def _restart(self) -> None:
        _close_all(self._nurseries)
        self._nurseries[:] = [NurseryHandle(self._preload) for _ in range(2)]
        self._ready()

    def _ready(self) -> InForce:
        """Wait for both nurseries; the protections of both are the same."""
        found = [nursery.in_force() for nursery in self._nurseries]
        return found[0]

    # ------------------------------------------------------------------- functions and asserts
    def _judge_calls(self, source: str, exam: Exam, deadline: float) -> Verdict:
        with ExitStack() as ours:
            outputs, writers = zip(*(open_stream(self._output_bytes) for _ in range(2)), strict=True)
            verdicts, verdict_writer = open_stream(_VERDICT_BYTES)
            for stream in (*outputs, verdicts):
                ours.callback(stream.close)
            ends = [end.detach() for end in socket.socketpair()]
            jobs = [
                _sealed(json.dumps({"source": source, "prefix": exam.prefix})),
                _sealed(json.dumps(_exam_json(exam, self._output_bytes))),
            ]
            theirs = [[writers[0], jobs[0], ends[0]], [writers[1], jobs[1], ends[1], verdict_writer]]
            try:
                for nursery, role, files in zip(self._nurseries, ("program", "tests"), theirs, strict=True):
                    nursery.start({"role": role, "limits": self.limits.as_json()}, files)
            finally:
                for descriptor in chain(*theirs):
                    os.close(descriptor)
            ended = supervise(self._nurseries, list(outputs), [verdicts], deadline)
            verdict = read_verdict(ended, bytes(verdicts.data), exam.form, exam.tests, self.limits)
            if verdict.reason == "judge_failed":  # a fault of ours: show it
                return replace(verdict, message=outputs[1].data.decode(errors="replace")[-1000:])
            return verdict

    @property
    def _output_bytes(self) -> int:
        return self.limits.output_kib << 10

    # -------------------------------------------------------------------------- whole programs
    def _judge_whole(self, source: str, exam: Exam, deadline: float) -> Verdict:
        passed, first = 0, None
        for test in exam.tests:
            ends = (
                deadline if exam.test_seconds is None else min(deadline, time.monotonic() + exam.test_seconds)
            )
            reason, output = self._run_whole(source, exam.prefix, test["input"], ends)
            if reason is None:
                same = same_text(output, test["output"], exam.tolerance, decimals=exam.decimals)
                reason = None if same else "wrong_answer"
            passed += reason is None
            first = first or reason
            if reason is not None and (exam.stop or time.monotonic() >= deadline):
                break
        return Verdict(first or "graded", passed, len(exam.tests))

    def _run_whole(self, source: str, prefix: str, text: str, deadline: float) -> tuple[str | None, str]:
        """Return why a run failed (None: it did not) and what it wrote."""
        output, writer = open_stream(self._output_bytes)
        files = [writer, _sealed(json.dumps({"source": source, "prefix": prefix})), _sealed(text)]
        try:
            nursery = self._nurseries[0]
            try:
                nursery.start({"role": "main", "limits": self.limits.as_json()}, files)
            finally:
                for descriptor in files:
                    os.close(descriptor)
            ended = supervise([nursery], [output], [], deadline)
        finally:
            output.close()
        return why_ended(ended, ended.reports[0], self.limits), output.data.decode(errors="replace")


def _exam_json(exam: Exam, limit: int) -> dict[str, Any]:
    names = list(dict.fromkeys([*([exam.entry_point] if exam.entry_point else []), *exam.names]))
    return {
        "form": exam.form,
        "tests": list(exam.tests),
        "entry_point": exam.entry_point,
        "names": [name for name in names if "." not in name],
        "setup": exam.setup,
        "shared": sorted(_classes(exam.setup) & _classes(exam.prefix)),
        "tolerance": exam.tolerance,
        "stop": exam.stop,
        "limit": limit,
    }


def _classes(source: str) -> set[str]:
    """Return the classes that a piece of Python defines at its top level."""
    try:
        return {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    except (SyntaxError, ValueError):
        return set()


def _sealed(text: str) -> int:
    """Return a file in memory that holds `text` and that nobody can change."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = memoryview(text.encode("utf-8", errors="replace"))
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _close_all(nurseries: list[NurseryHandle]) -> None:
    for nursery in nurseries:
        nursery.close()
    nurseries.clear()
