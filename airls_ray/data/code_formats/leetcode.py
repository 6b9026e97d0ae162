"""LeetCodeDataset, and rows like its."""

from __future__ import annotations

from typing import Any

from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_formats import Row, optional_text, program_problem, text_of


def read(where: str, row: Row) -> Problem:
    """Read a row like those of LeetCodeDataset: `query`, `entry_point` (`Solution().name`), `test`.

    `prompt` holds imports and helpers; `test` defines `check(candidate)`. Without it, `input_output` is a
    list of call tests with `arguments` and `expected`.
    """
    entry = text_of(where, row, "entry_point").replace("()", "")
    helpers = optional_text(where, row, "prompt")
    details: dict[str, Any] = {"entry_point": entry, "prefix": helpers}
    if isinstance(row.get("test"), str):
        details |= {"form": "assert", "setup": helpers, "tests": [f"{row['test']}\ncheck(candidate)\n"]}
    else:
        details |= {"form": "call", "tests": row.get("input_output")}
    question = "query" if row.get("query") else "problem_description"
    return program_problem(
        where, row, text_of(where, row, question), details, optional_text(where, row, "completion")
    )
