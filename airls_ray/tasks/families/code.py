"""Programs that are judged by tests, in a sandbox."""

from __future__ import annotations

import ast
import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airls_ray.grading.sandbox.box import PRELOAD, Exam, Sandbox
from airls_ray.grading.sandbox.limits import InForce, Limits
from airls_ray.tasks.base import Grade, Problem
from airls_ray.tasks.code_blocks import program_of
from airls_ray.tasks.code_formats import check_details
from airls_ray.tasks.problem_files import TwoFiles

if TYPE_CHECKING:
    from pathlib import Path

    from airls_ray.config.schema import CodeTaskConfig

_DELIMITERS = {"lines": "\n", "blocks": "\n\n"}


class CodeTask(TwoFiles):
    """Problems from two files; the truth of a step is not known. Implements `Task`."""

    name = "code"

    def __init__(self, config: CodeTaskConfig) -> None:
        """Keep the configuration; files and the sandbox are opened when they are first needed."""
        super().__init__(config.train_file, config.test_file, config.test_problems)
        self._config = config
        self.step_delimiter = _DELIMITERS.get(config.steps.name, "\n")
        if config.steps.name not in _DELIMITERS:
            self.step_rule = config.steps.rule(self.step_delimiter)

    def grade(self, problem: Problem, response: str) -> Grade:
        """Run the response's program on the problem's tests.

        The answer is a digest of the program, the same for programs that differ in layout and comments alone:
        votes then count programs.

        Raises:
            DataError: the problem's details are no tests.
            ConfigError: a required protection is missing on this machine.
        """
        check_details(f"problem {problem.prompt.strip()[:60]!r}", problem.details)
        source = program_of(response, problem.details)
        if not source.strip():
            return Grade(0.0, None, "no_program")
        verdict = self._sandbox.judge(source, self._exam(problem.details))
        share = verdict.passed / verdict.total if verdict.total else 0.0
        outcome = float(verdict.right) if self._config.outcome == "all" else share
        return Grade(outcome, digest_of(source), verdict.reason)

    def warm_up(self) -> None:
        """Start the sandbox, so that the first response does not pay for it."""
        assert self._sandbox

    def in_force(self) -> InForce:
        """Return what protects this machine from the programs; starts the sandbox."""
        return self._sandbox.in_force

    def close(self) -> None:
        """End the sandbox, if it was started."""
        if "_sandbox" in self.__dict__:
            self._sandbox.close()
            del self.__dict__["_sandbox"]

    @cached_property
    def _sandbox(self) -> Sandbox:
        settings = self._config.sandbox
        limits = Limits(**settings.model_dump(exclude={"require", "preload"}))
        return Sandbox(limits, settings.require, (*PRELOAD, *settings.preload))

    def _exam(self, details: dict[str, Any]) -> Exam:
        names = ("form", "tests", "entry_point", "names", "setup", "prefix", "test_seconds", "decimals")
        given = {name: details[name] for name in names if details.get(name)}
        return Exam(**given, tolerance=self._config.tolerance, stop=self._config.outcome == "all")

    def _read(self, source: Path) -> list[Problem]:
        from airls_ray.data.importing import import_problems

        found = import_problems(source, self._config.format.reads(), bad_rows="error", remedy="")
        for problem in found.problems:
            check_details(found.places[problem.problem_id], problem.details)
        return found.problems


def digest_of(source: str) -> str:
    """Return 12 characters that depend on a program, but not on its layout and comments."""
    try:
        source = ast.dump(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        source = source.strip()
    return hashlib.blake2b(source.encode("utf-8", errors="replace"), digest_size=6).hexdigest()


TASK = CodeTask
