"""A JSONL file of solutions to the same file with a score for each step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airls_ray.console.progress import Progress, QuietProgress
from airls_ray.data.row_files import json_rows
from airls_ray.errors import DataError
from airls_ray.files import replacing
from airls_ray.prm.items import StepScorer, StepText

SolutionRow = tuple[StepText, dict[str, Any]]
"""What is scored of a row, and the whole row."""

_ROWS_AT_ONCE = 256  # progress moves and memory is bounded; enough to sort by length


def read_solutions(path: Path) -> list[SolutionRow]:
    """Return for each row of a JSONL file its item and the whole row; blank lines are left out.

    Fields of a row: `problem` (text) and `steps` (list of texts); others are kept as they are.

    Raises:
        DataError: one sentence with the file and the 1-based line.
    """
    rows = [_check(where, row) for where, row in json_rows(path, "line")]
    if not rows:
        raise DataError(f"{path} has no rows; give at least one with 'problem' and 'steps'")
    return rows


def write_scores(
    scorer: StepScorer, rows: Sequence[SolutionRow], target: Path, progress: Progress | None = None
) -> int:
    """Write the rows with their `scores` to `target`, whole or not at all; a file that is there is replaced.

    Args:
        scorer: the PRM.
        rows: of `read_solutions`.
        target: JSONL; may be the file that the rows were read from.
        progress: shows the rows that are done.

    Returns:
        The number of steps.

    Raises:
        DataError: a row does not fit the PRM; nothing is written then.
    """
    steps = 0
    with (
        replacing(target) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        (progress or QuietProgress()).track("score", len(rows)) as track,
    ):
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            for (item, row), scores in zip(part, scorer.score([item for item, _ in part]), strict=True):
                assert len(scores) == len(item.steps), f"{item.where}: {len(scores)} scores"
                file.write(json.dumps(row | {"scores": scores}, ensure_ascii=False) + "\n")
                steps += len(scores)
            track.advance(len(part))
    return steps


def _check(where: str, row: Any) -> SolutionRow:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be a JSON object with 'problem' and 'steps'")
    problem, steps = row.get("problem"), row.get("steps")
    if not isinstance(problem, str) or not problem.strip():
        raise DataError(f"{where}: field 'problem' must be text that is not blank")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise DataError(f"{where}: field 'steps' must be a list of texts")
    if "scores" in row:
        raise DataError(f"{where}: field 'scores' is there already; rename it, so that it is not lost")
    return StepText(problem, steps, where=where), row
