"""Rows of JSONL, JSON, CSV, Parquet and Arrow files, each with its place.

A row that cannot be read comes as the error that names it, so that the reader may go on with the others.
Imports Arrow where a file needs it: graders read formats, too, and must start fast.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airls_ray.errors import DataError
from airls_ray.files import read_unpacked
from airls_ray.text.characters import half_character

Placed = tuple[str, Any]
"""Where a row is, such as `a.jsonl, row 3` (JSONL: the line), and its value or a DataError."""

_LONGEST_FIELD = 2**31 - 1
"""Characters of a field of CSV; of itself Python's reader takes 131,072."""
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def json_rows(path: Path, unit: str = "row") -> Iterator[Placed]:
    """Yield the rows of a JSON list (`row 3`) or of one JSON value a line (`unit` and its number); also .gz.

    Raises:
        DataError: the file cannot be read as a whole.
    """
    data = _bytes(path)
    if data.lstrip()[:1] == b"[":
        rows = _parse(data, str(path), "a JSON list")
        if isinstance(rows, DataError):
            raise rows
        yield from ((where, _whole(where, row)) for where, row in _numbered(path, rows))
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            where = f"{path}, {unit} {number}"
            yield where, _whole(where, _parse(line, where, "a JSON object"))


def csv_rows(path: Path) -> Iterator[Placed]:
    """Yield the rows of a CSV file with a head as objects of texts; also .gz.

    A row of more or fewer columns than the head comes as an error: its texts may stand under other names.

    Raises:
        DataError: the file cannot be read as a whole.
    """
    try:
        text = _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {_not_utf8(error)}") from error
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = next(rows, [])
        if twice := next((name for name in head if name.strip() and head.count(name) > 1), None):
            raise DataError(f"cannot read {path}: two columns are called {twice!r}")
        for where, row in _numbered(path, filter(None, rows)):
            surplus = f"{where}: {len(row)} columns, where the first line has {len(head)}"
            yield where, dict(zip(head, row, strict=True)) if len(row) == len(head) else DataError(surplus)
    except csv.Error as error:
        raise DataError(f"cannot read {path}: {error} (near line {rows.line_num})") from error


def parquet_rows(path: Path) -> Iterator[Placed]:
    """Yield the rows of a Parquet file as objects.

    Raises:
        DataError: the file cannot be read as a whole.
    """
    import pyarrow.parquet as pq

    yield from _batches(path, lambda: pq.ParquetFile(path).iter_batches())


def arrow_rows(path: Path) -> Iterator[Placed]:
    """Yield the rows of an Arrow file or stream as objects.

    Raises:
        DataError: the file cannot be read as a whole.
    """
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        file = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_file(file)
        except pa.ArrowInvalid:  # the stream format, in which `datasets` keeps its cache
            file.seek(0)
            return iter(pa.ipc.open_stream(file))
        return (reader.get_batch(index) for index in range(reader.num_record_batches))

    yield from _batches(path, batches)


def _numbered(path: Path, rows: Any) -> Iterator[Placed]:
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _bytes(path: Path) -> bytes:
    """Return the content of a file without the mark that some editors put before UTF-8."""
    _require(path)
    try:
        data = read_unpacked(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if data.startswith(_UTF16_MARKS):
        raise DataError(f"cannot read {path}: it is UTF-16; save it as UTF-8")
    return data.removeprefix(_UTF8_MARK)


def _require(path: Path) -> None:
    if not path.exists():
        raise DataError(f"cannot read {path}: there is no such file")
    if path.is_dir():
        raise DataError(f"cannot read {path}: it is a folder, give a file in it")


def _parse(data: bytes, where: str, what: str) -> Any:
    """Return what JSON text says, or a `DataError` as a value."""
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DataError(f"{where}: {_not_utf8(error)}")
    except json.JSONDecodeError as error:
        return DataError(f"{where}: not {what} ({error.msg} at column {error.colno})")
    except RecursionError:
        return DataError(f"{where}: not {what} (lists or objects are nested too deeply)")
    except ValueError:  # Python reads integers up to a limit
        return DataError(f"{where}: not {what} (a number has too many digits)")


def _not_utf8(error: UnicodeDecodeError) -> str:
    found = error.object[error.start]
    return f"not UTF-8 (byte {error.start + 1} is {found:#04x}); save the file as UTF-8"


def _whole(where: str, row: Any) -> Any:
    half = None if isinstance(row, DataError) else half_character(row)
    if half is None:
        return row
    return DataError(
        f"{where}: a text has {half}, half of a surrogate pair and no character; take it out, or write "
        "\\ufffd in its place"
    )


def _batches(path: Path, open_batches: Any) -> Iterator[Placed]:
    import pyarrow as pa

    _require(path)
    number = 0
    try:
        for batch in open_batches():
            for row in range(batch.num_rows):
                number += 1
                where = f"{path}, row {number}"
                yield where, _arrow_row(batch, row, where)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


def _arrow_row(batch: Any, row: int, where: str) -> Any:
    try:
        return {name: batch.column(at)[row].as_py() for at, name in enumerate(batch.schema.names)}
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start + 1} of a text)")
    except (ValueError, OverflowError) as error:  # a time that Python cannot hold, for example
        return DataError(f"{where}: a value cannot be read ({' '.join(str(error).split())[:200]})")
