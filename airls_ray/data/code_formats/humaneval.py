"""HumanEval."""

from __future__ import annotations

import ast

from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_formats import Row, optional_text, parse_test, program_problem, text_of


def read(where: str, row: Row) -> Problem:
    """Read a row of HumanEval: `task_id`, `prompt`, `entry_point`, `test`, `canonical_solution`.

    Helpers that a prompt defines before the function serve the tests, too, as the prompt has them.
    """
    prompt, entry = text_of(where, row, "prompt"), text_of(where, row, "entry_point")
    before = _before(where, prompt, entry)
    details = {
        "form": "assert",
        "entry_point": entry,
        "setup": before,
        "prefix": before,
        "complete": prompt,
        "tests": [f"{text_of(where, row, 'test')}\ncheck({entry})\n"],
    }
    solution = optional_text(where, row, "canonical_solution")
    return program_problem(where, row, prompt, details, prompt + solution if solution else None)


def _before(where: str, prompt: str, entry: str) -> str:
    """Return what a prompt has before the function that it asks for: imports and helpers."""
    functions = [node for node in parse_test(where, prompt).body if isinstance(node, ast.FunctionDef)]
    found = [node for node in functions if node.name == entry]
    if not found:
        raise DataError(f"{where}: the tests have no entry point: the prompt does not define {entry!r}")
    first = min([found[-1].lineno, *(node.lineno for node in found[-1].decorator_list)])
    return "".join(prompt.splitlines(keepends=True)[: first - 1])
