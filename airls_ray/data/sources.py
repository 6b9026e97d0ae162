"""Rows of any source: JSONL, JSON, CSV, Parquet and Arrow files, and data sets of the hub.

A row that cannot be read comes as the error that names it, so that the reader may go on with the others.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.data.row_files import arrow_rows, csv_rows, json_rows, parquet_rows
from airls_ray.data.rows import Row, kind_of
from airls_ray.errors import DataError

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
        ".jsonl": json_rows,
        ".json": json_rows,
        ".csv": csv_rows,
        ".parquet": parquet_rows,
        ".arrow": arrow_rows,
        ".feather": arrow_rows,
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
