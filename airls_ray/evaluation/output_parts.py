"""Graded responses made chunk by chunk, so that an evaluation that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.console.progress import Progress
from airls_ray.data.schemas import OUTPUTS, conform
from airls_ray.errors import DataError
from airls_ray.evaluation.outputs import measure_outputs, output_rows

PARTS, OUTPUT_FILE, SUMMARY, SETTINGS = "parts", "outputs.parquet", "summary.json", "evaluation.json"

Produce = Callable[[int, pa.Table], pa.Table]
"""First row and problems (PROBLEMS) of a chunk to its graded responses (OUTPUTS)."""


class OutputParts:
    """The folder of an evaluation: settings, a part for each chunk of problems, then one file of all."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], resume: bool, newer: Sequence[str] = ()
    ) -> None:
        """Open or begin an evaluation.

        Args:
            folder: of all files.
            settings: what responses and grades depend on (JSON values).
            resume: go on with the parts that are there.
            newer: settings that older evaluations do not hold, and whose parts are taken all the same.

        Raises:
            DataError: the folder holds an evaluation, and `resume` is false or its settings were others.
        """
        self.folder, self._settings = folder, json.loads(files.to_json(dict(settings)))
        known = folder / SETTINGS
        if known.exists():
            theirs = json.loads(known.read_text(encoding="utf-8"))
            compared = (self._settings.keys() - newer) | theirs.keys()
            other = sorted(k for k in compared if self._settings.get(k) != theirs.get(k))
            if not resume:
                raise DataError(
                    f"{folder} holds an evaluation: go on with --resume, or give another --output"
                )
            if other:
                raise DataError(
                    f"{folder} holds an evaluation with another {', '.join(other)}: give another --output"
                )
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder / PARTS)
        files.write_text(known, files.to_json(self._settings, indent=2) + "\n")

    def missing(self, problems: pa.Table, chunk: int) -> list[int]:
        """First rows of the chunks that are not there yet."""
        return [first for first in range(0, problems.num_rows, chunk) if not self._part(first).exists()]

    def make(
        self, problems: pa.Table, chunk: int, produce: Produce, progress: Progress, name: str = "Evaluation"
    ) -> None:
        """Produce the chunks that are missing, and keep each as soon as it is there."""
        missing = self.missing(problems, chunk)
        done = problems.num_rows - sum(problems.slice(first, chunk).num_rows for first in missing)
        right, graded = 0.0, 0
        with progress.track(name, problems.num_rows, done=done) as bar:
            for first in missing:
                part = problems.slice(first, chunk)
                table = conform(produce(first, part), OUTPUTS)
                with files.replacing(self._part(first)) as temporary:
                    pq.write_table(table, temporary)
                right, graded = right + sum(table["outcome"].to_pylist()), graded + table.num_rows
                bar.advance(part.num_rows, outcome=right / max(graded, 1))

    def finish(self, problems: pa.Table, chunk: int, progress: Progress, seed: int) -> dict[str, Any]:
        """Put all parts into one file, measure, and write and show the summary."""
        parts = [self._part(first) for first in range(0, problems.num_rows, chunk)]
        outputs = pa.concat_tables([conform(pq.read_table(part), OUTPUTS) for part in parts])
        with files.replacing(self.folder / OUTPUT_FILE) as temporary:
            pq.write_table(outputs, temporary)
        return write_summary(self.folder, outputs, problems, self._settings, progress, seed)

    def _part(self, first: int) -> Path:
        return self.folder / PARTS / f"{first:06d}.parquet"


def write_summary(
    folder: Path,
    outputs: pa.Table,
    problems: pa.Table,
    settings: Mapping[str, Any],
    progress: Progress,
    seed: int,
) -> dict[str, Any]:
    """Measure graded responses; write `summary.json` and print the table."""
    summary = {"settings": dict(settings), **measure_outputs(outputs, problems, seed)}
    files.write_text(folder / SUMMARY, files.to_json(summary, indent=2) + "\n")
    progress.table(
        f"{summary['problems']} problems, {summary['responses']} responses",
        output_rows(summary),
        ("", "accuracy", "95 % interval", "problems"),
    )
    ungraded = {name: count for name, count in summary["status"].items() if name != "graded"}
    if ungraded:
        progress.say("Responses that count as wrong because grading failed: " + str(ungraded))
    return summary
