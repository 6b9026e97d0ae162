"""Rows of any source: JSONL, JSON, CSV, Parquet and Arrow files, and data sets of the hub.

A row that cannot be read comes as the error that names it, so that the reader may go on with the others.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.data.rows import Row, kind_of
from airls_ray.errors import DataError
from airls_ray.files import read_unpacked

_HUB = "hub:"
_PACKED = (".jsonl", ".json", ".csv")
_ADDRESS = re.compile(
    r"hub:(?P<name>[^:@]+)(?::(?P<config>[^:@]+))?:(?P<split>[^:@]+)(?:@(?P<revision>[^:@]+))?"
)
_PINNED = re.compile(r"[0-9a-f]{40}")

SourceRow = tuple[str, Row | DataError]
"""Where a row is, such as `a.jsonl, row 3` (JSONL: the line), and the row or what is wrong with it."""


@dataclass(frozen=True)
class HubAddress:
    """A split of a data set on the hub: `hub:OWNER/NAME[:CONFIG]:SPLIT[@REVISION]`."""

    name: str
    config: str | None
    split: str
    revision: str | None


def is_hub(source: Path | str) -> bool:
    """Whether `source` names a data set of the hub and no file."""
    return str(source).startswith(_HUB)


def parse_hub(source: Path | str) -> HubAddress:
    """Return the parts of a hub address.

    Raises:
        DataError: it is not of the form above.
    """
    match = _ADDRESS.fullmatch(str(source))
    if match is None:
        raise DataError(
            f"{source} is no address of a data set; write hub:OWNER/NAME[:CONFIG]:SPLIT[@REVISION], for "
            "example hub:openai/gsm8k:main:train"
        )
    return HubAddress(match["name"], match["config"], match["split"], match["revision"])


def open_source(source: Path | str) -> Iterator[SourceRow]:
    """Yield the rows of a file, by suffix, or of a data set of the hub.

    Raises:
        DataError: the source as a whole cannot be read, or its suffix is unknown.
    """
    if is_hub(source):
        return _hub(source)
    path = Path(source)
    readers = {
        ".jsonl": _json,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
        ".arrow": _arrow,
        ".feather": _arrow,
    }
    packed = path.suffix == ".gz" and Path(path.stem).suffix in _PACKED
    suffix = Path(path.stem).suffix if packed else path.suffix
    if suffix not in readers:
        known = f"{', '.join(readers)} ({', '.join(_PACKED)} also with .gz)"
        raise DataError(f"{path} must end in one of {known}, so that its format is known")
    return _objects(readers[suffix](path))


def _objects(rows: Iterator[tuple[str, Any]]) -> Iterator[SourceRow]:
    for where, row in rows:
        if isinstance(row, Mapping | DataError):
            yield where, row
        else:
            yield where, DataError(f"{where}: must be an object, but is {kind_of(row)}")


def _bytes(path: Path) -> bytes:
    try:
        return read_unpacked(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    data = _bytes(path).removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"[":
        rows = _parse(data, str(path), "a JSON list")
        if isinstance(rows, DataError):
            raise rows
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            where = f"{path}, row {number}"
            yield where, _parse(line, where, "a JSON object")


def _parse(data: bytes, where: str, what: str) -> Any:
    """Return what JSON text says, or a `DataError` as a value."""
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start + 1} is {data[error.start]:#04x})")
    except json.JSONDecodeError as error:
        return DataError(f"{where}: not {what} ({error.msg} at column {error.colno})")


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: not UTF-8 (byte {error.start + 1})") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
    except csv.Error as error:
        raise DataError(f"cannot read {path}: {error} (near line {rows.line_num})") from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as pq

    yield from _batches(path, lambda: pq.ParquetFile(path).iter_batches())


def _arrow(path: Path) -> Iterator[tuple[str, Any]]:
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


def _batches(path: Path, open_batches: Any) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in open_batches():
            for row in range(batch.num_rows):
                number += 1
                yield f"{path}, row {number}", _arrow_row(batch, row, f"{path}, row {number}")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


def _arrow_row(batch: Any, row: int, where: str) -> Any:
    try:
        return {name: batch.column(at)[row].as_py() for at, name in enumerate(batch.schema.names)}
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start + 1} of a text)")


def _hub(source: Path | str) -> Iterator[SourceRow]:
    address = parse_hub(source)
    local = "download its file where there is a network and give the path of the .parquet or .jsonl instead"
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{source} needs the package `datasets`, which is not installed here; install it (pip install "
            f"datasets) or {local}"
        ) from error
    if address.revision is None or not _PINNED.fullmatch(address.revision):
        logging.getLogger(__name__).warning(
            "%s is not pinned and may change under the run; add @ and the 40 hex digits of a commit",
            source,
        )
    try:
        table = datasets.load_dataset(
            address.name, address.config, split=address.split, revision=address.revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"cannot load {source} from the hub ({reason}); {local}") from error
    return _objects((f"{source}, row {number}", row) for number, row in enumerate(table, 1))
