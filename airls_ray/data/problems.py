"""Problems as Arrow tables, as files, and as endless seeded streams."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import DataError, RunError
from airls_ray.tasks.base import Problem, Split, Task
from airls_ray.tasks.generate import content_id

Row = dict[str, Any]


def problems_to_table(problems: Iterable[Problem]) -> pa.Table:
    """Return a table of schema PROBLEMS, a row a problem, in order."""
    problems = list(problems)
    columns = [
        [problem.problem_id for problem in problems],
        [problem.prompt for problem in problems],
        [problem.answer for problem in problems],
        [list(problem.traces) for problem in problems],
        [json.dumps(problem.details) for problem in problems],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PROBLEMS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=PROBLEMS)


def table_to_problems(table: pa.Table) -> list[Problem]:
    """Return the problems of a table of schema PROBLEMS, in order."""
    rows = zip(*(table[name].to_pylist() for name in PROBLEMS.names), strict=True)
    return [
        Problem(problem_id, prompt, answer, tuple(traces or ()), json.loads(details or "{}"))
        for problem_id, prompt, answer, traces, details in rows
    ]


def read_problems(path: Path) -> pa.Table:
    """Read a JSONL or Parquet file into a table of schema PROBLEMS.

    Fields of a row: `prompt` and `answer` (text, required); `traces` (list of text) or `trace` (text);
    `problem_id` (text; made from the prompt if absent); `details` (object). Others are ignored.

    Raises:
        DataError: names the file, the 1-based row (of JSONL: the line) and the field.
    """
    rows = _read_parquet(path) if _is_parquet(path) else _read_jsonl(path)
    problems: list[Problem] = []
    first_row: dict[str, tuple[int, str]] = {}
    for number, row in rows:
        problem = problem_of_row(f"{path}, row {number}", row)
        before = first_row.setdefault(problem.problem_id, (number, problem.prompt))
        if before[1] != problem.prompt:
            raise DataError(
                f"{path}, row {number}: field 'problem_id' is {problem.problem_id!r} like that of row "
                f"{before[0]}, but the prompts differ"
            )
        problems.append(problem)
    if not problems:
        raise DataError(f"{path} has no problems; give at least one row with 'prompt' and 'answer'")
    return problems_to_table(problems)


def write_problems(table: pa.Table, path: Path) -> None:
    """Write a table of schema PROBLEMS as JSONL or Parquet, by suffix; a reader never sees half a file.

    Raises:
        DataError: the suffix is neither .jsonl nor .parquet.
        RunError: the file cannot be written.
    """
    parquet = _is_parquet(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if parquet:
            pq.write_table(table, part)
        else:
            with part.open("w", encoding="utf-8") as file:
                file.writelines(_json_line(problem) for problem in table_to_problems(table))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def replace_rows(table: pa.Table, rows: Sequence[int], others: pa.Table) -> pa.Table:
    """Return `table` with row `rows[i]` replaced by row i of `others`; all other rows stay where they are."""
    order = np.arange(table.num_rows)
    order[list(rows)] = table.num_rows + np.arange(len(rows))
    return pa.concat_tables([table, others]).take(pa.array(order)).combine_chunks()


class ProblemStream:
    """The problems of a split from a position on: seeded, and resumable by its `position`.

    Training streams are endless; the test split ends, and `take` then returns fewer rows.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        seed: int,
        start: int = 0,
        fit: Callable[[Problem], Problem | None] | None = None,
    ) -> None:
        """Begin at problem `start` of the stream that `seed` gives.

        `fit` changes a problem or leaves it out (None); `position` counts those that were left out, too.
        """
        self.position = start
        self._fit = fit
        self._problems: Iterator[Problem] = task.problems(split, seed, start)

    def take(self, count: int) -> pa.Table:
        """Return the next `count` problems as a table of schema PROBLEMS and advance."""
        problems: list[Problem] = []
        while len(problems) < count:
            drawn = list(islice(self._problems, count - len(problems)))
            if not drawn:
                break
            self.position += len(drawn)
            fitting = map(self._fit, drawn) if self._fit else drawn
            problems += [problem for problem in fitting if problem is not None]
        return problems_to_table(problems)


def take_distinct(stream: ProblemStream, count: int) -> pa.Table:
    """Return up to `count` problems of a stream, each once: a stream of few problems repeats them.

    Returns fewer when as many draws as are still wanted bring nothing new.
    """
    parts: list[pa.Table] = []
    seen: set[str] = set()
    while len(seen) < count:
        table = stream.take(count - len(seen))
        before, rows = len(seen), []
        for row, identity in enumerate(table["problem_id"].to_pylist()):
            if identity not in seen:
                seen.add(identity)
                rows.append(row)
        parts.append(table.take(pa.array(rows, pa.int64())))
        if len(seen) == before:
            break
    return pa.concat_tables(parts).combine_chunks()


def _is_parquet(path: Path) -> bool:
    if path.suffix not in (".jsonl", ".json", ".parquet"):
        raise DataError(f"{path} must end in .jsonl or .parquet, so that its format is known")
    return path.suffix == ".parquet"


def _read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the problem file {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            message = f"{path}, row {number}: not a JSON object ({error.msg} at column {error.colno})"
            raise DataError(message) from error


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read the problem file {path}: {error}") from error
    yield from enumerate(table.to_pylist(), 1)


def problem_of_row(where: str, row: Any) -> Problem:
    """Return the problem of a row in our own fields (see `read_problems`).

    Raises:
        DataError: a field is missing or of another type; the sentence begins with `where`.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with 'prompt' and 'answer', but is {_kind(row)}")
    prompt, answer = _text(where, row, "prompt"), _text(where, row, "answer")
    traces = _traces(where, row)
    identity = (
        content_id("file", prompt) if row.get("problem_id") is None else _text(where, row, "problem_id")
    )
    details = row.get("details")
    if isinstance(details, str):  # the form that a Parquet file of ours has
        try:
            details = json.loads(details)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: field 'details' is not JSON") from error
    if details is not None and not isinstance(details, dict):
        raise DataError(f"{where}: field 'details' must be an object, but is {_kind(details)}")
    return Problem(identity, prompt, answer, traces, details or {})


def _text(where: str, row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"{where}: field {name!r} is missing; it must be text")
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text, but is {_kind(value)}")
    if not value.strip():
        raise DataError(f"{where}: field {name!r} is empty")
    return value


def _traces(where: str, row: Row) -> tuple[str, ...]:
    if row.get("trace") is not None:
        if row.get("traces") is not None:
            raise DataError(f"{where}: give either field 'trace' or field 'traces', not both")
        return (_text(where, row, "trace"),)
    traces = row.get("traces")
    if traces is None:
        return ()
    if not isinstance(traces, list):
        raise DataError(f"{where}: field 'traces' must be a list of texts, but is {_kind(traces)}")
    for index, trace in enumerate(traces, 1):
        if not isinstance(trace, str) or not trace.strip():
            raise DataError(f"{where}: field 'traces' must hold texts, but element {index} is {_kind(trace)}")
    return tuple(traces)


def _kind(value: Any) -> str:
    """Name a value's type in the words of JSON."""
    names = {"str": "empty text", "list": "a list", "dict": "an object", "bool": "true or false"}
    kind = type(value).__name__
    return "null" if value is None else names.get(kind, "a number" if kind in ("int", "float") else kind)


def _json_line(problem: Problem) -> str:
    fields = {
        "problem_id": problem.problem_id,
        "prompt": problem.prompt,
        "answer": problem.answer,
        "traces": list(problem.traces),
        "details": problem.details,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"
