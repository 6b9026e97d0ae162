"""Finished records on disk: a line each while the search runs, at its end one Parquet file in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.errors import DataError
from airls_ray.search.records import SEARCH_RECORDS, records_table

Key = tuple[str, str, int, int, str]
"""Algorithm, scorer, budget, seed and problem of a record."""
_LONG = ("step_ends", "steps", "step_truth", "scores")
_ROWS_AT_ONCE = 256
"""Records of a row group: so many are in memory with all that they hold."""


def key_of(record: Mapping[str, Any]) -> Key:
    """Return what no two records of a search share."""
    return (
        record["algorithm"],
        record["scorer"],
        record["budget"],
        record["seed"],
        record["problem_id"],
    )


class Journal:
    """`records.jsonl` in the output folder. A batch of records is written at once or not at all.

    In memory are the figures of each record; its texts and tokens stay on disk.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], resume: bool, newer: Sequence[str] = ()
    ) -> None:
        """Open the journal of a search with these settings (JSON values); its first line holds them.

        Args:
            folder: of `records.jsonl`.
            settings: what the records depend on.
            resume: go on with the records that are there.
            newer: settings that older journals do not hold, and whose records are taken all the same.

        Raises:
            DataError: at a resume, the journal is of other settings or broken; else, one is there already.
        """
        self._path = folder / "records.jsonl"
        self.records: dict[Key, dict[str, Any]] = {}
        """Figures of the records (`figures_of`)."""
        self._starts: dict[Key, int] = {}
        """Where the line of each begins in the file."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            files.write_text(self._path, json.dumps({"settings": settings}, sort_keys=True) + "\n")
            return
        if not resume:
            raise DataError(f"{folder} holds a search already: go on with --resume, or give another --output")
        with self._path.open("r+b") as file:
            if not _same(file.readline(), settings, newer):
                raise DataError(
                    f"{self._path} is of a search with other settings, models or problems, so it cannot be "
                    "resumed: take those of then, or give another --output"
                )
            for number in count(2):
                start, line = file.tell(), file.readline()
                if not line.endswith(b"\n"):  # the end, or a kill in the middle of a write
                    file.truncate(start)
                    break
                try:
                    self._keep(json.loads(line), start)
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{self._path}, line {number}: not a record ({error})") from error

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished records."""
        lines = [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]
        with self._path.open("ab") as file:
            start = file.tell()
            file.write(b"".join(lines))
        for record, line in zip(records, lines, strict=True):
            self._keep(record, start)
            start += len(line)

    def write_parquet(self, order: Sequence[Key]) -> Path:
        """Write the records of `order` as records.parquet; equal records give an equal file."""
        path = self._path.with_name("records.parquet")
        part = path.with_name(path.name + ".part")
        with pq.ParquetWriter(part, SEARCH_RECORDS) as writer, self._path.open("rb") as file:
            for at in range(0, len(order), _ROWS_AT_ONCE):
                rows = [self._read(file, key) for key in order[at : at + _ROWS_AT_ONCE]]
                writer.write_table(records_table(rows))
        part.replace(path)
        return path

    def _keep(self, record: Mapping[str, Any], start: int) -> None:
        key = key_of(record)
        self.records[key], self._starts[key] = figures_of(record), start

    def _read(self, file: BinaryIO, key: Key) -> dict[str, Any]:
        file.seek(self._starts[key])
        record: dict[str, Any] = json.loads(file.readline())
        return record


def figures_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the texts and tokens of its leaves, which are most of it; equal responses are
    told by an equal digest in their place."""
    leaves = [
        {name: value for name, value in leaf.items() if name not in _LONG}
        | {"response": [sha256(json.dumps(leaf["response"]).encode()).digest()]}
        for leaf in record["leaves"]
    ]
    return {**record, "leaves": leaves, "nodes": None}


def _same(head: bytes, settings: Mapping[str, Any], newer: Sequence[str]) -> bool:
    """Whether the first line of a journal holds these settings, but for newer ones that it lacks."""
    try:
        found = json.loads(head)["settings"]
    except (ValueError, KeyError, TypeError):
        return False
    known = {name: value for name, value in settings.items() if name in found or name not in newer}
    return bool(found == json.loads(json.dumps(known)))
