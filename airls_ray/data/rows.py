"""Rows of JSONL, JSON and Parquet files, each with its place, and the checks that its fields pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airls_ray.data.row_files import json_rows, parquet_rows
from airls_ray.errors import DataError

Row = Mapping[str, Any]


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, each with its place for messages, such as `a.jsonl, line 3`.

    A `.parquet` file; by content a JSON list of objects (`row 3`), else one JSON object a line (also .gz).

    Raises:
        DataError: the file cannot be read, holds no rows, or one of them is no object.
    """
    for where, row in readable_rows(path):
        if isinstance(row, DataError):
            raise row
        yield where, row


def readable_rows(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    """As `read_rows`, but a row that cannot be read comes as the error that names it.

    Raises:
        DataError: the file cannot be read as a whole, or holds no rows.
    """
    rows = parquet_rows(path) if path.suffix == ".parquet" else json_rows(path, "line")
    empty = True
    for where, row in rows:
        empty = False
        if isinstance(row, DataError | Mapping):
            yield where, row
        else:
            yield where, DataError(f"{where}: must be an object, but is {kind_of(row)}")
    if empty:
        raise DataError(f"{path} has no rows")


def text_of(where: str, row: Row, name: str) -> str:
    """Return a field that must be text and not empty."""
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: field {name!r} must be text, but is {kind_of(value)}")
    return value


def optional_text(where: str, row: Row, name: str) -> str | None:
    """Return a field that may be absent or null."""
    return None if row.get(name) is None else text_of(where, row, name)


def texts_of(where: str, row: Row, name: str) -> tuple[str, ...]:
    """Return a field that must be a list of texts, at least one (a blank text is one)."""
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: field {name!r} must be a list of texts, but is {kind_of(value)}")
    for number, text in enumerate(value, 1):
        if not isinstance(text, str):
            raise DataError(f"{where}: text {number} of field {name!r} is {kind_of(text)}")
    return tuple(value)


def share_of(where: str, row: Row, name: str) -> float | None:
    """Return a field that is true, false, a number from 0 to 1, or (as None) absent or null."""
    value = row.get(name)
    if value is None:
        return None
    if not is_share(value):
        raise DataError(
            f"{where}: field {name!r} must be true, false or a number from 0 to 1, but is {kind_of(value)}"
        )
    return float(value)


def outcome_of(where: str, row: Row) -> float:
    """Return field `correct` or, where that is absent or null, `outcome`: true, false or a number, 0 to 1."""
    name = "outcome" if row.get("correct") is None and "outcome" in row else "correct"
    outcome = share_of(where, row, name)
    if outcome is None:
        raise DataError(
            f"{where}: field 'correct' (or 'outcome') must say whether the answer is right, but is absent or "
            "null"
        )
    return outcome


def scores_of(where: str, row: Row, name: str, steps: int | None = None) -> tuple[float, ...] | None:
    """Return a field of step scores in [0, 1], one for each of `steps` (None: any number); None if absent."""
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise DataError(f"{where}: field {name!r} must be a list of numbers, but is {kind_of(value)}")
    if steps is not None and len(value) != steps:
        raise DataError(f"{where}: field {name!r} has {len(value)} numbers for {steps} steps")
    for number, score in enumerate(value, 1):
        if isinstance(score, bool) or not is_share(score):
            shown = score if isinstance(score, int | float) else kind_of(score)
            raise DataError(
                f"{where}: number {number} of field {name!r} must lie between 0 and 1, but is {shown}"
            )
    return tuple(map(float, value))


def is_share(value: Any) -> bool:
    """Whether a value is true, false or a number from 0 to 1."""
    return isinstance(value, int | float) and 0 <= value <= 1


def kind_of(value: Any) -> str:
    """Name a value in the words of JSON."""
    if value is None:
        return "absent or null"
    if isinstance(value, str):
        return "text" if value else "empty text"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    names = {"dict": "an object", "bool": "true or false"}
    return names.get(type(value).__name__, str(value))
