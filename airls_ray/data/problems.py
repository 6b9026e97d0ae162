"""Problems as Arrow tables, as files, and as endless seeded streams."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airls_ray.data.importing import import_problems
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import DataError, RunError
from airls_ray.files import fault_of_path
from airls_ray.tasks.base import Problem, Split, Task
from airls_ray.text.messages import HISTORY, conversation


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


def content_of(problems: pa.Table) -> str:
    """Return a digest of what is asked, in order, and of what is right: all of PROBLEMS but the traces."""
    columns = (problems[name].to_pylist() for name in PROBLEMS.names if name != "traces")
    return sha256(json.dumps(list(zip(*columns, strict=True))).encode()).hexdigest()


def read_problems(path: Path) -> pa.Table:
    """Read a file of our own fields (see `problem_of_row`) into a table of schema PROBLEMS, as
    `import_problems` does: rows of one problem are joined, and a bad row is an error.

    Raises:
        DataError: names the file, the 1-based row (of JSONL: the line) and the field.
    """
    return problems_to_table(import_problems(path, None, bad_rows="error", remedy="").problems)


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
        with suppress(OSError):  # of the first error alone the user is told
            part.unlink()
        raise RunError(f"cannot write {path}: {fault_of_path(error) or error.strerror or error}") from error


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


def _json_line(problem: Problem) -> str:
    details = dict(problem.details)
    turns = details.pop(HISTORY, None)
    prompt = problem.prompt if turns is None else conversation("", problem.prompt, turns)
    fields = {
        "problem_id": problem.problem_id,
        "prompt": prompt,
        "answer": problem.answer,
        "traces": list(problem.traces),
        "details": details,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"
