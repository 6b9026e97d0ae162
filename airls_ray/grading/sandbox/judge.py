"""The tests' process: runs the tests, asks the program over the channel, and compares by itself.

The program runs in another sandbox. What comes from it are plain values and stand-ins, so the builtins,
the comparisons and the `assert` of this process are its own.
"""

from __future__ import annotations

import ast
import json
import math
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from airls_ray.grading.sandbox.asserts import reporting
from airls_ray.grading.sandbox.objects import travels
from airls_ray.grading.sandbox.remote import Channel, ProgramEnded, Remote
from airls_ray.grading.sandbox.values import NotPlain

_LONGEST_MESSAGE = 200


class Judge:
    """Runs one job and writes a line of JSON for every test as soon as it is decided.

    Behind the lines of a text of asserts stands one that says whether it ran to its end (`whole`).
    """

    def __init__(self, job: dict[str, Any], channel: int, verdicts: int) -> None:
        """Ask over the socket `channel`, write to the pipe `verdicts`."""
        self._job = job
        self._channel = Channel(channel, job["limit"])
        self._verdicts = verdicts
        self._stop = bool(job["stop"])

    def run(self) -> int:
        """Run all tests, or up to the first that fails where the job says so; return 0."""
        try:
            kind, name, message = self._channel.greeting()
            if kind != "value":
                reason = (
                    "syntax_error" if kind == "syntax" else "memory" if name == "MemoryError" else "exception"
                )
                self._say({"ended": reason, "message": f"{name} {message}"[:_LONGEST_MESSAGE]})
                return 0
            if self._job["form"] == "call":
                self._run_calls()
            else:
                self._run_asserts()
        except ProgramEnded as end:
            self._say({"ended": end.reason})
        except _Stop:
            self._say({"finished": True})
        else:
            self._say({"finished": True})
        return 0

    # -------------------------------------------------------------------------------- call tests
    def _run_calls(self) -> None:
        for test in self._job["tests"]:
            self._decide(lambda test=test: self._check_call(test))  # type: ignore[misc]

    def _check_call(self, test: dict[str, Any]) -> bool:
        function = self._entry()
        operation = "call_in_place" if test.get("in_place") else "call"
        arguments, keywords = test["arguments"], test.get("keywords", {})
        given = self._channel.ask(operation, function, *arguments, **keywords)
        return equal(given, test["expected"], self._job["tolerance"])

    def _entry(self) -> Any:
        """Return the function under test; a method gets a new object, so that tests share no state."""
        owner, _, name = self._job["entry_point"].rpartition(".")
        if owner:
            return self._channel.ask("getattr", self._global(owner)(), name)
        return self._global(name)

    def _global(self, name: str) -> Any:
        try:
            return self._channel.ask("name", name)
        except KeyError:
            raise NoEntryPoint(name) from None

    # ------------------------------------------------------------------------------ assert tests
    def _run_asserts(self) -> None:
        module = types.ModuleType("tests")
        sys.modules["tests"] = module  # dataclasses and typing look their module up
        scope = module.__dict__
        entry = self._job["entry_point"]
        try:
            for name in self._job["names"]:
                if name == entry or self._has(name):
                    scope[name] = self._global(name)
            if entry:
                scope["candidate"] = scope[entry] if entry in scope else self._entry()
            exec(compile(self._job["setup"], "<setup>", "exec", dont_inherit=True), scope)
            shared = {name: scope.get(name) for name in self._job["shared"]}
            ours = {name: kind for name, kind in shared.items() if travels(kind)}
            if ours:
                self._channel.share(ours)
            for name in shared.keys() - ours:  # the program raises its own exceptions
                if self._has(name):
                    scope[name] = self._global(name)
        except Exception as error:
            self._record(_reason(error), error)
            return
        scope.update(__passed__=self._passed, __failed__=self._failed)
        for text in self._job["tests"]:
            self._run_chunk(reporting(text, self._stop), scope)

    def _has(self, name: str) -> bool:
        try:
            self._channel.ask("name", name)
        except Exception:  # whatever the program raises comes back as that
            return False
        return True

    def _run_chunk(self, tree: ast.Module, scope: dict[str, Any]) -> None:
        self._channel.undecided = False
        before = set(scope)
        try:
            exec(compile(tree, "<tests>", "exec", dont_inherit=True), scope)
        except Exception as error:
            self._channel.expect_alive()
            self._record(self._why(error), error)
            self._say({"whole": False})
            return
        cases = [scope[name] for name in scope if name not in before and _is_test_case(scope[name])]
        whole = [self._run_cases(case) for case in cases]
        self._channel.expect_alive()  # the text may have caught it with a bare `except`
        self._say({"whole": all(whole)})

    def _run_cases(self, cases: Any) -> bool:
        """Run the methods of a class of unittest, each a test; its asserts report by themselves, too.

        Returns whether all ran to their end.
        """
        import unittest  # most tests do without

        whole = True
        for case in unittest.defaultTestLoader.loadTestsFromTestCase(cases):
            self._channel.undecided = False
            found = _Errors()
            case.run(found)  # type: ignore[arg-type]
            self._channel.expect_alive()
            if not found.skipped:
                error = found.first
                whole = whole and error is None
                self._record(self._why(error) if error else None, error)
        return whole

    def _passed(self) -> None:
        self._channel.undecided = False
        self._record(None)

    def _failed(self, error: Exception | None = None) -> None:
        self._record(self._why(error), error)
        self._channel.undecided = False

    def _why(self, error: Exception | None) -> str:
        """Return the reason of a failure; one that hangs on objects that cannot be compared is the test's."""
        reason = _reason(error) if error else "wrong_answer"
        return "unsupported_test" if reason == "wrong_answer" and self._channel.undecided else reason

    # ------------------------------------------------------------------------------------ verdicts
    def _decide(self, check: Callable[[], bool]) -> None:
        try:
            right = check()
        except Exception as error:
            self._record(_reason(error), error)
        else:
            self._record(None if right else "wrong_answer")

    def _record(self, reason: str | None, error: Exception | None = None) -> None:
        line: dict[str, Any] = {"passed": reason is None, "reason": reason}
        if error is not None:
            line["message"] = f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
        self._say(line)
        if reason is not None and self._stop:
            raise _Stop

    def _say(self, line: dict[str, Any]) -> None:
        os.write(self._verdicts, json.dumps(line).encode() + b"\n")  # short, so it is written whole


class NoEntryPoint(Exception):
    """The program lacks what the tests call."""


class _Stop(BaseException):
    """The first failure decides."""


def _reason(error: Exception) -> str:
    if isinstance(error, NoEntryPoint):
        return "no_entry_point"
    if isinstance(error, (NotPlain, NameError, ImportError)) and not hasattr(error, "from_program"):
        return "unsupported_test"
    if isinstance(error, (TypeError, AttributeError)) and "'Remote'" in str(error):  # the stand-in's limits
        return "unsupported_test"
    if isinstance(error, MemoryError):
        return "memory"
    return "exception" if hasattr(error, "from_program") else "wrong_answer"


def equal(given: Any, expected: Any, tolerance: float) -> bool:
    """Whether two plain values are the same; lists and tuples count alike, since JSON has lists alone.

    `tolerance`: largest difference of two numbers, relative or absolute, if one of them is a float.
    """
    if isinstance(given, (list, tuple)) and isinstance(expected, (list, tuple)):
        pairs = zip(given, expected, strict=False)
        return len(given) == len(expected) and all(equal(one, other, tolerance) for one, other in pairs)
    if isinstance(given, dict) and isinstance(expected, dict):
        if given.keys() != expected.keys():
            return False
        return all(equal(given[key], value, tolerance) for key, value in expected.items())
    if isinstance(given, Remote):
        return False
    if isinstance(expected, (int, float, str, list, tuple)) and hasattr(given, "tolist"):  # an array of numpy
        return equal(given.tolist(), expected, tolerance)
    floats = isinstance(given, float) or isinstance(expected, float)
    if tolerance and floats and isinstance(given, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(given, expected, rel_tol=tolerance, abs_tol=tolerance)
    return bool(given == expected)


def _is_test_case(value: Any) -> bool:
    """Whether a value is a class of unittest with tests of its own."""
    kinds = getattr(value, "__mro__", ()) if isinstance(value, type) else ()
    return any(kind.__module__ == "unittest.case" and kind.__name__ == "TestCase" for kind in kinds[1:])


class _Errors:
    """The result of a test of unittest: its first error, and whether it ran."""

    shouldStop = failfast = False

    def __init__(self) -> None:
        self.first: Exception | None = None
        self.skipped = False

    def addError(self, test: Any, error: Any) -> None:
        if self.first is None:
            self.first = error[1]

    addFailure = addError

    def addSubTest(self, test: Any, part: Any, error: Any) -> None:
        if error is not None:
            self.addError(test, error)

    def addSkip(self, test: Any, reason: str) -> None:
        self.skipped = True

    def addSuccess(self, test: Any) -> None:
        pass

    startTest = stopTest = addSuccess

    def addExpectedFailure(self, test: Any, error: Any) -> None:
        pass

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.first = AssertionError("a failure was expected")
