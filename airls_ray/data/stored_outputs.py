"""Responses that somebody stored: read, matched to the task's problems, graded without any engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from airls_ray.data.messages import read_messages
from airls_ray.data.rows import Row, optional_text, read_rows, text_of
from airls_ray.data.schemas import OUTPUTS, rows_to_table
from airls_ray.errors import DataError
from airls_ray.evaluation.outputs import GREEDY
from airls_ray.grading.pool import GradeRequest, GraderPool
from airls_ray.text.messages import asked_of

_TURNS = "messages"
"""What errors call a prompt of several messages."""


@dataclass(frozen=True)
class Response:
    """One response to the problem in row `problem` of a table of problems."""

    problem: int
    index: int
    text: str
    tokens: int | None = None
    finish: str | None = None


def read_responses(paths: Sequence[Path], problems: pa.Table) -> list[Response]:
    """Read JSONL, JSON or Parquet files of responses to `problems` (schema PROBLEMS).

    Fields of a row: `problem_id` or `prompt` (text or messages; which problem), `response` (text), and
    optionally `tokens` (a number), `finish` ("stop" or "length") and `index` (-1 for a greedy response).
    Others are ignored.

    Raises:
        DataError: one sentence with file and row: a field is missing, or there is no such problem, or several
            with different answers.
    """
    known = _Known(problems)
    counts: Counter[int] = Counter()
    responses = []
    for path in paths:
        for where, row in read_rows(path):
            problem = known.problem(where, row)
            greedy = row.get("index") == GREEDY
            responses.append(
                Response(
                    problem,
                    GREEDY if greedy else counts[problem],
                    _response(where, row),
                    _count(where, row),
                    optional_text(where, row, "finish"),
                )
            )
            counts[problem] += not greedy
    return responses


def grade_responses(responses: Sequence[Response], problems: pa.Table, pool: GraderPool) -> pa.Table:
    """Judge responses to `problems` and return a table of schema OUTPUTS, in their order."""
    names, prompts, answers, details = (
        problems[name].to_pylist() for name in ("problem_id", "prompt", "answer", "details")
    )
    grades = pool.grade(
        [
            GradeRequest(prompts[one.problem], answers[one.problem], details[one.problem], one.text)
            for one in responses
        ]
    )
    rows = [
        (
            names[one.problem], one.index, one.text, one.tokens, one.finish,
            grade.outcome, grade.answer, grade.status,
        )
        for one, grade in zip(responses, grades, strict=True)
    ]  # fmt: skip
    return rows_to_table(rows, OUTPUTS)


class _Known:
    """The problems that a row may name."""

    def __init__(self, problems: pa.Table) -> None:
        columns = (problems[name].to_pylist() for name in ("problem_id", "prompt", "details"))
        self._answers: list[str] = problems["answer"].to_pylist()
        self._asked: list[str] = []
        self._rows: dict[str, dict[str, list[int]]] = {"problem_id": {}, "prompt": {}, _TURNS: {}}
        for row, (identity, prompt, details) in enumerate(zip(*columns, strict=True)):
            self._asked.append(asked_of(prompt, details))
            keys = (identity.strip(), prompt.strip(), self._asked[-1])
            for rows, key in zip(self._rows.values(), keys, strict=True):
                rows.setdefault(key, []).append(row)

    def problem(self, where: str, row: Row) -> int:
        """Return the row of the problem, the first of several with one answer."""
        name = "problem_id" if row.get("problem_id") is not None else "prompt"
        turns = row.get(name)
        if name == "prompt" and isinstance(turns, list):
            name, given = _TURNS, asked_of(*read_messages(where, name, turns))
        else:
            given = text_of(where, row, name)
        found = self._rows[name].get(given.strip(), [])
        if not found:
            raise DataError(
                f"{where}: {name} {given[:60]!r} is none of the {len(self._answers)} test problems of the "
                "task: correct it, or raise search.problems and task.test_problems"
            )
        if len({self._answers[at] for at in found}) > 1:
            raise DataError(
                f"{where}: {name} {given[:60]!r} is that of {len(found)} test problems with different "
                "answers: name the right one by 'problem_id', or mend the test file"
            )
        if name == "prompt" and len({self._asked[at] for at in found}) > 1:
            raise DataError(
                f"{where}: prompt {given[:60]!r} ends {len(found)} conversations: name the right one by "
                "'problem_id', or give all its messages"
            )
        return found[0]


def _response(where: str, row: Row) -> str:
    value: Any = row.get("response")
    if not isinstance(value, str):  # an empty one is a wrong answer, not a wrong row
        raise DataError(f"{where}: field 'response' must be text, but is absent or something else")
    return value


def _count(where: str, row: Row) -> int | None:
    value = row.get("tokens")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{where}: field 'tokens' must be a whole number, but is {value!r}")
    return value
