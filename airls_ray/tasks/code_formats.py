"""Rows of programming problems as problems of the task `code`: what every form of them shares.

A form (`airls_ray/data/code_formats/`) takes a row and where it stands (`file, row 3`), and returns a problem
whose `details` hold what the grader needs: the fields of `airls_ray.grading.sandbox.box.Exam` (`form`,
`tests`, `entry_point`, `names`, `setup`, `prefix`) and `complete`, the beginning of a program that a response
may go on from.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem

Row = Mapping[str, Any]
ANSWER = "passes its tests"
"""Answer of every such problem: a schema asks for one, and nothing compares it."""


def check_details(where: str, details: Mapping[str, Any]) -> None:
    """Refuse details that cannot judge anything.

    Raises:
        DataError: with `where` and what is missing.
    """
    form, tests = details.get("form"), details.get("tests")
    if form not in ("call", "assert", "stdin"):
        raise DataError(f"{where}: 'form' of the tests must be call, assert or stdin, but is {form!r}")
    if not isinstance(tests, list) or not tests:
        raise DataError(f"{where}: 'tests' must be a list with at least one test")
    if form != "stdin" and not details.get("entry_point"):
        raise DataError(
            f"{where}: the tests have no entry point; set 'entry_point' to the function that they call"
        )
    if form == "assert":
        trees = [parse_test(where, test) for test in tests]
        if not any(_tests_something(node) for tree in trees for node in ast.walk(tree)):
            raise DataError(f"{where}: the tests assert nothing, so every program would pass")
        return
    needed = {"call": ("arguments", "expected"), "stdin": ("input", "output")}[str(form)]
    for number, test in enumerate(tests, 1):
        absent = [name for name in needed if not isinstance(test, Mapping) or name not in test]
        if absent:
            raise DataError(f"{where}: test {number} lacks {' and '.join(map(repr, absent))}")


def _tests_something(node: ast.AST) -> bool:
    """Whether a node is an assert, or a class of unittest with tests."""
    if not isinstance(node, ast.ClassDef):
        return isinstance(node, ast.Assert)
    return any("TestCase" in ast.unparse(base) for base in node.bases) and any(
        isinstance(one, ast.FunctionDef) and one.name.startswith("test") for one in node.body
    )


def text_of(where: str, row: Row, name: str) -> str:
    """Return a field that must be text and not empty."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        missing = "the tests have no entry point: " if name == "entry_point" else ""
        raise DataError(f"{where}: {missing}field {name!r} must be text that is not empty")
    return value


def optional_text(where: str, row: Row, name: str) -> str:
    """Return a field that may be absent or null (then it is empty), but must be text."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text")
    return value or ""


def program_problem(
    where: str, row: Row, prompt: str, details: dict[str, Any], solution: str | None
) -> Problem:
    """Return a problem under the row's `task_id` or `question_id`; `solution` is its trace.

    Raises:
        DataError: there is no identifier, or the details cannot judge anything.
    """
    check_details(where, details)
    identity = next((row[name] for name in ("task_id", "question_id") if row.get(name) is not None), None)
    if not isinstance(identity, str | int):
        raise DataError(f"{where}: there is neither 'task_id' nor 'question_id', as text or a number")
    return Problem(str(identity), prompt, ANSWER, (solution,) if solution else (), details)


def parse_test(where: str, text: Any) -> ast.Module:
    """Return the tree of a test, or raise a DataError."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, TypeError) as error:
        raise DataError(f"{where}: a test is no Python ({error})") from error
