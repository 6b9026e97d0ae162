"""Files of solutions whose steps are labelled: ProcessBench, PRMBench, PRM800K and this project's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airls_ray.data.prm800k import labelled_steps
from airls_ray.data.rows import (
    Row,
    is_share,
    kind_of,
    optional_text,
    read_rows,
    scores_of,
    share_of,
    text_of,
    texts_of,
)
from airls_ray.errors import DataError
from airls_ray.tasks.generate import content_id
from airls_ray.tasks.maths.naming import vote_name

StepForm = Literal["processbench", "prmbench", "prm800k", "labels", "records", "prm_labels"]

CORRECT = "correct"
"""Classification of PRMBench's unchanged solutions, as its own code calls it."""

_FIELDS: dict[StepForm, str] = {
    "labels": "problem, steps, labels",
    "processbench": "problem, steps, label",
    "prmbench": "original_process, modified_process, error_steps, classification",
    "prm800k": "question, label (with steps)",
    "records": "prompt, leaves (records.parquet of airls-ray search)",
    "prm_labels": "prompt_text, step_texts, step_truth (labels.parquet of airls-ray train-prm)",
}


@dataclass(frozen=True)
class StepRow:
    """A solution, step by step, with what is known of its truth."""

    problem: str
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]
    """Whether each step is right; None: unknown."""
    problem_id: str
    """Equal for solutions of the same problem."""
    subset: str
    """What is measured apart: the row's own `subset`, else the name of its file without suffix."""
    classification: str | None = None
    """PRMBench's kind of error, `CORRECT` for an unchanged solution; None in the other forms."""
    pair: str | None = None
    """PRMBench: what a changed solution and the unchanged one that it was made from have in common."""
    outcome: float | None = None
    """Whether the final answer is right, in [0, 1]; None: unknown."""
    answer: str | None = None
    """Canonical final answer; None: unknown or none."""
    scores: tuple[float, ...] | None = None
    """Scores that the file brings, one a step, in [0, 1]."""
    ignored: int = 0
    """PRMBench: labelled wrong steps that the solution does not have."""
    where: str = "the solution"
    """File and line or row, for messages."""

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step, -1 where all are right, None where that is unknown."""
        for at, label in enumerate(self.labels):
            if not label:
                return None if label is None else at
        return -1


def read_step_file(path: Path, form: StepForm | None = None) -> list[StepRow]:
    """Read a JSONL, JSON or Parquet file of labelled steps.

    - `processbench` (arXiv 2412.06559): `problem`, `steps`, `label`: the first wrong step counted from 0, or
      -1. Steps behind it have no label. `final_answer_correct` is the outcome where it is there.
    - `prmbench` (arXiv 2501.03124): a row gives its `modified_process`, with `error_steps` counted from 1,
      and once each distinct `original_process`, all of it right. Wrong steps behind the last step are
      ignored, as by the benchmark's own code; the published file has 100 such rows of 6,216.
    - `labels`: `problem`, `steps`, `labels` (one a step: true, false, a number from 0 to 1 of which more than
      1/2 is right, or null). Optional: `problem_id`, `subset`, `correct` (or `outcome`), `answer`, and
      `classification` and `pair` of solutions that are to be measured as those of PRMBench.
    - `prm800k` (arXiv 2305.20050): `question`, `label`: the steps that the raters went on from, to the first
      wrong one; ratings 1 and 0 are right. Rows without a rated step, of a bad problem or given up are left
      out.
    - `records`: what `airls-ray search` leaves: each finished response is a solution; the labels are the
      task's step truth, the scores those of the search.
    - `prm_labels`: what `airls-ray train-prm` leaves; the labels are the task's step truth, not its own.

    All may bring `scores` (one a step, in [0, 1]); PRMBench those of the original as `original_scores`.

    Args:
        path: the file.
        form: None: told from the fields of the first row.

    Returns:
        The rows in order; PRMBench's originals stand before the first change of each.

    Raises:
        DataError: one sentence with the file, the line (JSONL) or row and what is wrong.
    """
    rows = list(read_rows(path))
    chosen = form or detect_form(*rows[0])
    subset = path.stem
    if chosen == "prmbench":
        return _distinct_originals([row for where, one in rows for row in _prmbench(where, one, subset)])
    if chosen == "prm800k":
        rated = [(where, labelled_steps(row)) for where, row in rows]
        found = [_labels(where, row, subset) for where, row in rated if row is not None]
        if not found:
            raise DataError(f"{path} has no rated step in its {len(rows)} rows")
        return found
    if chosen == "records":
        return [_labels(where, leaf, subset) for where, row in rows for leaf in _leaves(row)]
    if chosen == "prm_labels":
        return [_labels(where, _prm_labels(row), subset) for where, row in rows]
    read: Callable[[str, Row, str], StepRow] = _processbench if chosen == "processbench" else _labels
    return [read(where, row, subset) for where, row in rows]


def _leaves(row: Row) -> Iterator[Row]:
    """The finished responses of a search's record as rows of the form `labels`."""
    for leaf in row["leaves"] or ():
        steps = leaf["steps"]
        truth = leaf["step_truth"] or [None] * len(steps)
        yield {**leaf, "problem": row["prompt"], "problem_id": row["problem_id"], "labels": truth}


def _prm_labels(row: Row) -> Row:
    """A row of PRM_LABELS as one of the form `labels`."""
    steps = row["step_texts"]
    return {
        "problem": row["prompt_text"],
        "problem_id": row["problem_id"],
        "steps": steps,
        "labels": row["step_truth"] or [None] * len(steps),
        "outcome": row["outcome"],
    }


def detect_form(where: str, row: Row) -> StepForm:
    """Return the form of a row by its fields.

    Raises:
        DataError: they fit none.
    """
    if "modified_process" in row:
        return "prmbench"
    if isinstance(row.get("label"), dict) and "question" in row:
        return "prm800k"
    if "leaves" in row and "prompt" in row:
        return "records"
    if "step_texts" in row and "prompt_text" in row:
        return "prm_labels"
    if "steps" in row and "labels" in row:
        return "labels"
    if "steps" in row and "label" in row:
        return "processbench"
    known = "; ".join(f"{form}: {fields}" for form, fields in _FIELDS.items())
    raise DataError(f"{where}: the fields {', '.join(row)} fit no form of labelled steps ({known})")


def _processbench(where: str, row: Row, subset: str) -> StepRow:
    problem, steps = text_of(where, row, "problem"), texts_of(where, row, "steps")
    label: Any = row.get("label")
    if not _is_whole(label) or not -1 <= label < len(steps):
        raise DataError(
            f"{where}: field 'label' must be the first wrong step counted from 0, or -1 for none, so from -1 "
            f"to {len(steps) - 1}, but is {kind_of(label)}"
        )
    labels: tuple[bool | None, ...] = (True,) * len(steps)
    if label >= 0:
        labels = (*labels[:label], False, *(None,) * (len(steps) - label - 1))
    return StepRow(
        problem=problem,
        steps=steps,
        labels=labels,
        problem_id=_problem_id(where, row, problem),
        subset=optional_text(where, row, "subset") or subset,
        outcome=share_of(where, row, "final_answer_correct"),
        scores=scores_of(where, row, "scores", len(steps)),
        where=where,
    )


def _labels(where: str, row: Row, subset: str) -> StepRow:
    problem, steps = text_of(where, row, "problem"), texts_of(where, row, "steps")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        found = f"{len(labels)} values" if isinstance(labels, list) else kind_of(labels)
        raise DataError(
            f"{where}: field 'labels' must be a list with one value a step, {len(steps)}: {found}"
        )
    for number, label in enumerate(labels, 1):
        if label is not None and not is_share(label):
            raise DataError(
                f"{where}: label {number} must be true, false, a number from 0 to 1 or null, but is "
                f"{kind_of(label)}"
            )
    outcome = share_of(where, row, "correct")
    return StepRow(
        problem=problem,
        steps=steps,
        labels=tuple(None if label is None else label > 0.5 for label in labels),
        problem_id=_problem_id(where, row, problem),
        subset=optional_text(where, row, "subset") or subset,
        classification=optional_text(where, row, "classification"),
        pair=optional_text(where, row, "pair"),
        outcome=share_of(where, row, "outcome") if outcome is None else outcome,
        answer=vote_name(optional_text(where, row, "answer")),
        scores=scores_of(where, row, "scores", len(steps)),
        where=where,
    )


def _prmbench(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    before = optional_text(where, row, "original_question") or text_of(where, row, "question")
    after = optional_text(where, row, "modified_question") or before
    original, modified = texts_of(where, row, "original_process"), texts_of(where, row, "modified_process")
    wrong = row.get("error_steps")
    if not isinstance(wrong, list) or not all(_is_whole(step) and step >= 1 for step in wrong):
        raise DataError(
            f"{where}: field 'error_steps' must be a list of steps counted from 1, but is "
            f"{wrong if isinstance(wrong, list) else kind_of(wrong)}"
        )
    problem_id = content_id("prmbench", before)
    pair = content_id("pair", "\n".join((before, *original)))
    yield StepRow(
        problem=before,
        steps=original,
        labels=(True,) * len(original),
        problem_id=problem_id,
        subset=subset,
        classification=CORRECT,
        pair=pair,
        scores=scores_of(where, row, "original_scores", len(original)),
        where=where,
    )
    yield StepRow(
        problem=after,
        steps=modified,
        labels=tuple(number not in wrong for number in range(1, len(modified) + 1)),
        problem_id=problem_id,
        subset=subset,
        classification=text_of(where, row, "classification"),
        pair=pair,
        scores=scores_of(where, row, "scores", len(modified)),
        ignored=sum(step > len(modified) for step in wrong),
        where=where,
    )


def _distinct_originals(rows: Sequence[StepRow]) -> list[StepRow]:
    """Keep the first of equal originals: the same one is changed in several ways."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.classification == CORRECT and row.pair:
            if row.pair in seen:
                continue
            seen.add(row.pair)
        kept.append(row)
    return kept


def read_step_files(paths: Sequence[Path], form: StepForm | None = None) -> list[StepRow]:
    """Read several files, one after the other; see `read_step_file`. Each original of PRMBench comes once."""
    return _distinct_originals([row for path in paths for row in read_step_file(path, form)])


def _problem_id(where: str, row: Row, problem: str) -> str:
    return optional_text(where, row, "problem_id") or content_id("steps", problem)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
