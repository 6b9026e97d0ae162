"""Published sets of programming problems as problems of the task `code`.

A reader takes a row and where it stands (`file, row 3`), and returns a problem whose `details` hold what the
grader needs: the fields of `airls_ray.grading.sandbox.box.Exam` (`form`, `tests`, `entry_point`, `names`,
`setup`, `prefix`) and `complete`, the beginning of a program that a response may go on from.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem

Row = Mapping[str, Any]
ANSWER = "passes its tests"
"""Answer of every such problem: a schema asks for one, and nothing compares it."""


_LIVECODEBENCH_HEADER = "\n".join(
    [
        *(
            f"from {name} import *"
            for name in (
                *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
                *(
                    "statistics",
                    "itertools",
                    "functools",
                    "operator",
                    "io",
                    "sys",
                    "json",
                    "builtins",
                    "typing",
                ),
            )
        ),
        "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools",
        "import functools, operator, io, sys, json",
        "sys.setrecursionlimit(50000)",
    ]
)
"""What LiveCodeBench's own harness puts before every program."""


def humaneval(where: str, row: Row) -> Problem:
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
    solution = _optional(where, row, "canonical_solution")
    return _problem(where, row, prompt, details, prompt + solution if solution else None)


def mbpp(where: str, row: Row) -> Problem:
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
    setup = "\n".join([*imports, _optional(where, row, "test_setup_code")]).strip()
    solution = _optional(where, row, "code")
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
    return _problem(where, row, prompt, details, solution)


def leetcode(where: str, row: Row) -> Problem:
    """Read a row like those of LeetCodeDataset: `query`, `entry_point` (`Solution().name`), `test`.

    `prompt` holds imports and helpers; `test` defines `check(candidate)`. Without it, `input_output` is a
    list of call tests with `arguments` and `expected`.
    """
    entry = text_of(where, row, "entry_point").replace("()", "")
    helpers = _optional(where, row, "prompt")
    details: dict[str, Any] = {"entry_point": entry, "prefix": helpers}
    if isinstance(row.get("test"), str):
        details |= {"form": "assert", "setup": helpers, "tests": [f"{row['test']}\ncheck(candidate)\n"]}
    else:
        details |= {"form": "call", "tests": row.get("input_output")}
    question = "query" if row.get("query") else "problem_description"
    return _problem(where, row, text_of(where, row, question), details, _optional(where, row, "completion"))


def livecodebench(where: str, row: Row) -> Problem:
    """Read a row of LiveCodeBench: `question_content`, `starter_code`, `metadata` and two fields of tests."""
    tests = _tests(where, row, "public_test_cases") + _tests(where, row, "private_test_cases", packed=True)
    kinds = {test.get("testtype") for test in tests}
    prompt, starter = text_of(where, row, "question_content"), _optional(where, row, "starter_code")
    if kinds == {"stdin"}:
        pairs = [{key: test[key] for key in ("input", "output") if key in test} for test in tests]
        details: dict[str, Any] = {"form": "stdin", "tests": pairs, "test_seconds": 6.0, "decimals": True}
    elif kinds == {"functional"}:
        metadata = _json(where, row, "metadata", empty="{}")
        name = metadata.get("func_name") if isinstance(metadata, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: 'metadata' has no 'func_name', so the tests have no entry point")
        entry = f"Solution.{name}" if "class Solution" in starter else name
        details = {"form": "call", "entry_point": entry}
        details["tests"] = [_call(where, test) for test in tests]
    else:
        raise DataError(
            f"{where}: the tests must all be 'stdin' or all 'functional', but are {sorted(map(str, kinds))}"
        )
    details["prefix"] = _LIVECODEBENCH_HEADER
    prompt += f"\n\n{starter}" if starter.strip() else ""
    return _problem(where, row, prompt, details, None)


READERS: dict[str, Callable[[str, Row], Problem]] = {
    "humaneval": humaneval,
    "mbpp": mbpp,
    "leetcode": leetcode,
    "livecodebench": livecodebench,
}


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
        trees = [_parse(where, test) for test in tests]
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


def _optional(where: str, row: Row, name: str) -> str:
    """Return a field that may be absent or null (then it is empty), but must be text."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text")
    return value or ""


def _problem(where: str, row: Row, prompt: str, details: dict[str, Any], solution: str | None) -> Problem:
    check_details(where, details)
    identity = next((row[name] for name in ("task_id", "question_id") if row.get(name) is not None), None)
    if not isinstance(identity, str | int):
        raise DataError(f"{where}: there is neither 'task_id' nor 'question_id', as text or a number")
    return Problem(str(identity), prompt, ANSWER, (solution,) if solution else (), details)


def _parse(where: str, text: Any) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, TypeError) as error:
        raise DataError(f"{where}: a test is no Python ({error})") from error


def _before(where: str, prompt: str, entry: str) -> str:
    """Return what a prompt has before the function that it asks for: imports and helpers."""
    functions = [node for node in _parse(where, prompt).body if isinstance(node, ast.FunctionDef)]
    found = [node for node in functions if node.name == entry]
    if not found:
        raise DataError(f"{where}: the tests have no entry point: the prompt does not define {entry!r}")
    first = min([found[-1].lineno, *(node.lineno for node in found[-1].decorator_list)])
    return "".join(prompt.splitlines(keepends=True)[: first - 1])


def _names(where: str, text: str) -> list[str]:
    nodes = [node for node in ast.walk(_parse(where, text)) if isinstance(node, ast.Name)]
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


def _tests(where: str, row: Row, name: str, *, packed: bool = False) -> list[Row]:
    """Return tests of LiveCodeBench: objects whose fields are texts."""
    tests = _json(where, row, name, packed=packed)
    if not isinstance(tests, list) or not all(isinstance(test, Mapping) for test in tests):
        raise DataError(f"{where}: field {name!r} must be a list of tests")
    for test in tests:
        for key in ("input", "output", "testtype"):
            _optional(f"{where}, {name}", test, key)
    return tests


def _call(where: str, test: Row) -> dict[str, Any]:
    try:
        arguments = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
        return {"arguments": arguments, "expected": json.loads(test["output"])}
    except (KeyError, ValueError) as error:
        raise DataError(f"{where}: a functional test is no JSON ({error})") from error


def _json(where: str, row: Row, name: str, *, packed: bool = False, empty: str = "[]") -> Any:
    value = row.get(name) or empty
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if not packed:
            raise DataError(f"{where}: field {name!r} is not JSON") from None
    try:
        return json.loads(_PlainUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(value)))).load())
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError, TypeError) as error:
        raise DataError(f"{where}: field {name!r} is neither JSON nor packed JSON") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickled text, as LiveCodeBench packs it, and refuses everything that could run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not plain")
