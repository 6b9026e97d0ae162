"""MBPP; the first function that its tests call is the entry point."""

from __future__ import annotations

import ast
import re

from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_formats import Row, optional_text, parse_test, program_problem, text_of


def read(where: str, row: Row) -> Problem:
    """Read a row of MBPP: `task_id`, `text` (or `prompt`), `test_list`, `test_setup_code`, `code`.

    The tests may use every function and class that the reference program defines.
    """
    text = text_of(where, row, "text" if "text" in row else "prompt")
    tests = row.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise DataError(f"{where}: field 'test_list' must be a list of at least one text")
    imports = row.get("test_imports") or []
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise DataError(f"{where}: field 'test_imports' must be a list of texts")
    setup = "\n".join([*imports, optional_text(where, row, "test_setup_code")]).strip()
    solution = optional_text(where, row, "code")
    used = _names(where, "\n".join([setup, *tests]))
    if solution:  # tests rely on what the reference imports, too
        setup = "\n".join([*_imports(solution, used), setup]).strip()
    defined = _definitions(solution)
    names = [name for name in used if name in defined]
    if not names:
        raise DataError(
            f"{where}: no test calls a function that field 'code' defines, so there is no entry point"
        )
    called = _first_call(tests[0], names)
    details = {"form": "assert", "entry_point": called, "names": names, "setup": setup, "tests": list(tests)}
    prompt = f"{text}\nYour code should pass these tests:\n" + "\n".join(tests) + "\n"
    return program_problem(where, row, prompt, details, solution)


def _names(where: str, text: str) -> list[str]:
    nodes = [node for node in ast.walk(parse_test(where, text)) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(node.id for node in nodes))


def _imports(code: str, names: list[str]) -> list[str]:
    """Return the import statements at a program's top level that bind one of `names`."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return []
    found = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    bound = [{alias.asname or alias.name for alias in node.names} for node in found]
    return [ast.unparse(node) for node, theirs in zip(found, bound, strict=True) if theirs & {*names, "*"}]


def _definitions(code: str) -> list[str]:
    """Return the names that a program binds at its top level; of one that is no Python, its `def` lines."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return re.findall(r"^(?:def|class)\s+(\w+)", code, re.MULTILINE)
    names: list[str] = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


def _first_call(test: str, names: list[str]) -> str:
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            return node.func.id
    return names[0]
