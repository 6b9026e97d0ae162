"""Rollouts in, verdicts out: the grader pool on Arrow tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa

from airls_ray.data.schemas import GRADES
from airls_ray.grading.pool import GradeRequest, GradeResult, GraderPool
from airls_ray.text.codec import TextCodec


def grade_table(rollouts: pa.Table, problems: pa.Table, codec: TextCodec, pool: GraderPool) -> pa.Table:
    """Judge every row of `rollouts` (schema ROLLOUTS) and return a table of schema GRADES, row by row.

    `problems` (schema PROBLEMS) must hold every `problem_id` of the rollouts, in any order.

    Raises:
        KeyError: a rollout's problem is missing.
        RunError: a grader process cannot be started.
    """
    return results_to_table(pool.grade(requests_of(rollouts, problems, codec)))


def requests_of(rollouts: pa.Table, problems: pa.Table, codec: TextCodec) -> list[GradeRequest]:
    """What there is to judge in `rollouts`, as text, row by row.

    Raises:
        KeyError: a rollout's problem is missing.
    """
    names = ("problem_id", "prompt", "answer", "details")
    rows = zip(*(problems[name].to_pylist() for name in names), strict=True)
    by_id = {problem_id: texts for problem_id, *texts in rows}
    requests = []
    for problem_id, response, ends in zip(
        rollouts["problem_id"].to_pylist(),
        _lists(rollouts["response"]),
        _lists(rollouts["step_ends"]),
        strict=True,
    ):
        prompt, answer, details = by_id[problem_id]
        steps = codec.step_texts(response, ends)
        text = codec.decode(response)
        requests.append(GradeRequest(prompt, answer, details, text, steps, codec.open_thought))
    return requests


def results_to_table(results: list[GradeResult]) -> pa.Table:
    """Return a table of schema GRADES; an unknown step truth is a null."""
    columns: list[list[Any]] = [
        [result.outcome for result in results],
        [result.answer for result in results],
        [result.step_truth for result in results],
        [result.status for result in results],
    ]
    arrays = [_array(column, field.type) for column, field in zip(columns, GRADES, strict=True)]
    return pa.Table.from_arrays(arrays, schema=GRADES)


def _array(column: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(column, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(column, kind)


def _lists(column: pa.ChunkedArray) -> list[list[int]]:
    """Return a list column as Python lists, several times faster than `to_pylist`."""
    rows: list[list[int]] = []
    for chunk in column.chunks:
        offsets, values = chunk.offsets.to_pylist(), chunk.values.to_numpy().tolist()
        rows += [values[start:end] for start, end in pairwise(offsets)]
    return rows
