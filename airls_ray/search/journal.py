"""Finished records on disk: a line each while the search runs, at its end one Parquet file in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.errors import DataError
from airls_ray.search.records import records_table

Key = tuple[str, str, int, int, str]
"""Algorithm, scorer, budget, seed and problem of a record."""


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
    """`records.jsonl` in the output folder. A batch of records is written at once or not at all."""

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
        folder.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"settings": settings}, sort_keys=True)
        if not self._path.exists():
            files.write_text(self._path, head + "\n")
            return
        if not resume:
            raise DataError(f"{folder} holds a search already: go on with --resume, or give another --output")
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        if not lines or not _same(lines[0], settings, newer):
            raise DataError(
                f"{self._path} is of a search with other settings or models, so it cannot be resumed: take "
                "the settings of then, or give another --output"
            )
        for number, line in enumerate(lines[1:], 2):
            if not line.endswith("\n"):  # a kill in the middle of a write
                break
            try:
                record = json.loads(line)
                self.records[key_of(record)] = record
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self._path}, line {number}: not a record ({error})") from error
        files.write_text(self._path, head + "\n" + "".join(map(_line, self.records.values())))

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished records."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, records)))
        self.records.update({key_of(record): dict(record) for record in records})

    def write_parquet(self, order: Sequence[Key]) -> Path:
        """Write the records of `order` as records.parquet; equal records give an equal file."""
        path = self._path.with_name("records.parquet")
        part = path.with_name(path.name + ".part")
        pq.write_table(records_table([self.records[key] for key in order]), part)
        part.replace(path)
        return path


def _same(head: str, settings: Mapping[str, Any], newer: Sequence[str]) -> bool:
    """Whether the first line of a journal holds these settings, but for newer ones that it lacks."""
    try:
        found = json.loads(head)["settings"]
    except (ValueError, KeyError, TypeError):
        return False
    known = {name: value for name, value in settings.items() if name in found or name not in newer}
    return bool(found == json.loads(json.dumps(known)))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
