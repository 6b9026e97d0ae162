"""A row in our own fields."""

from __future__ import annotations

import json
from typing import Any

from airls_ray.data.messages import content_of, is_messages, read_history, read_messages
from airls_ray.data.rows import Row, kind_of
from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem
from airls_ray.text.messages import HISTORY


def problem_of_row(where: str, row: Row) -> Problem:
    """Return the problem of a row.

    Fields: `prompt` (text, or a list of chat messages) and `answer` (text), both required; `traces` (list of
    text) or `trace` (text); `problem_id` (text; made from the prompt if absent); `details` (object). Others
    are ignored.

    Raises:
        DataError: a field is missing or of another type; the sentence begins with `where`.
    """
    details = details_of(where, row)
    if is_messages(row.get("prompt")):
        prompt, turns = read_messages(where, "prompt", row["prompt"])
        details |= turns
    else:
        prompt = _text(where, row, "prompt")
        if HISTORY in details:
            read_history(where, details[HISTORY], prompt)
    answer, traces = _text(where, row, "answer"), _traces(where, row)
    given = row.get("problem_id")
    identity = content_of(prompt, details) if given is None else _text(where, row, "problem_id")
    return Problem(identity, prompt, answer, traces, details)


def details_of(where: str, row: Row) -> dict[str, Any]:
    """Return the field `details`: an object, or JSON of one.

    Raises:
        DataError: it is none, or holds what JSON has not; the sentence begins with `where`.
    """
    details = row.get("details")
    if isinstance(details, str):  # the form that a Parquet file of ours has
        try:
            details = json.loads(details)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: field 'details' is not JSON") from error
    if details is not None and not isinstance(details, dict):
        raise DataError(f"{where}: field 'details' must be an object, but is {_kind(details)}")
    try:
        json.dumps(details)
    except (TypeError, ValueError) as error:  # a row of Parquet may hold times or bytes
        raise DataError(f"{where}: field 'details' holds what JSON has not ({error})") from error
    return dict(details or {})


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
        hint = "; give one text as 'trace'" if isinstance(traces, str) else ""
        raise DataError(f"{where}: field 'traces' must be a list of texts, but is {_kind(traces)}{hint}")
    for index, trace in enumerate(traces, 1):
        if not isinstance(trace, str) or not trace.strip():
            kind = "empty text" if isinstance(trace, str) else _kind(trace)
            raise DataError(f"{where}: field 'traces' must hold texts, but element {index} is {kind}")
    return tuple(traces)


def _kind(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "a number" if is_number else kind_of(value)
