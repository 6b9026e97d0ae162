"""LiveCodeBench, also with packed tests."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_formats import Row, optional_text, program_problem, text_of

_HEADER = "\n".join(
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


def read(where: str, row: Row) -> Problem:
    """Read a row of LiveCodeBench: `question_content`, `starter_code`, `metadata` and two fields of tests."""
    tests = _tests(where, row, "public_test_cases") + _tests(where, row, "private_test_cases", packed=True)
    kinds = {test.get("testtype") for test in tests}
    prompt, starter = text_of(where, row, "question_content"), optional_text(where, row, "starter_code")
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
    details["prefix"] = _HEADER
    prompt += f"\n\n{starter}" if starter.strip() else ""
    return program_problem(where, row, prompt, details, None)


def _tests(where: str, row: Row, name: str, *, packed: bool = False) -> list[Row]:
    """Return tests of LiveCodeBench: objects whose fields are texts."""
    tests = _json(where, row, name, packed=packed)
    if not isinstance(tests, list) or not all(isinstance(test, Mapping) for test in tests):
        raise DataError(f"{where}: field {name!r} must be a list of tests")
    for test in tests:
        for key in ("input", "output", "testtype"):
            optional_text(f"{where}, {name}", test, key)
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
