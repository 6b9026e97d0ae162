"""What the rows of each form of labelled steps say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from airls_ray.data.math_shepherd import is_math_shepherd, marked_steps
from airls_ray.data.prm800k import labelled_alternatives, labelled_steps
from airls_ray.data.rows import (
    Row,
    is_share,
    kind_of,
    optional_text,
    scores_of,
    share_of,
    text_of,
    texts_of,
)
from airls_ray.errors import DataError
from airls_ray.tasks.generate import content_id
from airls_ray.tasks.maths.naming import vote_name

StepForm = Literal[
    "processbench", "prmbench", "prm800k", "labels", "stepwise", "math_shepherd", "records", "prm_labels"
]

CORRECT = "correct"
"""Classification of PRMBench's unchanged solutions, as its own code calls it."""

_FIELDS: dict[StepForm, str] = {
    "labels": "problem, steps, labels",
    "stepwise": "prompt, completions, labels",
    "math_shepherd": "input with the marker ки, label",
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
    """Whether each step is right (a soft label: above 1/2); None: unknown."""
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
    finished: bool = True
    """Whether the last step ends the solution."""
    soft_labels: tuple[float | None, ...] | None = None
    """The labels as numbers in [0, 1], where the file has such; None: `labels` are all."""
    where: str = "the solution"
    """File and line or row, for messages."""

    @property
    def targets(self) -> tuple[float | None, ...]:
        """What a PRM learns of each step, in [0, 1], 1 being right; None: nothing."""
        if self.soft_labels is not None:
            return self.soft_labels
        return tuple(None if label is None else float(label) for label in self.labels)

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step, -1 where all are right, None where that is unknown."""
        for at, label in enumerate(self.labels):
            if not label:
                return None if label is None else at
        return -1


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
    if is_math_shepherd(row):
        return "math_shepherd"
    if "completions" in row and "prompt" in row and "labels" in row:
        return "stepwise"
    if "steps" in row and "labels" in row:
        return "labels"
    if "steps" in row and "label" in row:
        return "processbench"
    known = "; ".join(f"{form}: {fields}" for form, fields in _FIELDS.items())
    raise DataError(f"{where}: the fields {', '.join(row)} fit no form of labelled steps ({known})")


def _records(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    """The finished responses of a search's record."""
    leaves = row.get("leaves")
    if leaves is not None and not isinstance(leaves, list):
        raise DataError(f"{where}: field 'leaves' must be a list of responses, but is {kind_of(leaves)}")
    for leaf in leaves or ():
        if not isinstance(leaf, Mapping):
            raise DataError(
                f"{where}: field 'leaves' must be a list of responses, but one is {kind_of(leaf)}"
            )
        given = {"problem": row.get("prompt"), "problem_id": row.get("problem_id")}
        yield _labels(where, {**leaf, **given, "labels": _truth(leaf, "steps")}, subset)


def _prm_labels(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    """A row of PRM_LABELS."""
    given = {name: row.get(name) for name in ("problem_id", "outcome")}
    given |= {"problem": row.get("prompt_text"), "steps": row.get("step_texts")}
    yield _labels(where, {**given, "labels": _truth(row, "step_texts")}, subset)


def _truth(row: Row, steps_field: str) -> Any:
    """What is known of the steps, null for each where nothing is."""
    steps = row.get(steps_field)
    return row.get("step_truth") or [None] * (len(steps) if isinstance(steps, list) else 0)


def _prm800k(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    rated = labelled_steps(row)
    if rated is not None:
        yield replace(_labels(where, rated, subset), finished=rated["finished"])


def prm800k_alternatives(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    """A row of PRM800K with the rated steps that nobody went on from; see `labelled_alternatives`."""
    yield from _prm800k(where, row, subset)
    for rated in labelled_alternatives(row):
        yield replace(_labels(where, rated, subset), finished=rated["finished"])


def _math_shepherd(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    yield _labels(where, marked_steps(where, row), subset)


def _stepwise(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    yield _labels(where, row, subset, "prompt", "completions")


def _processbench(where: str, row: Row, subset: str) -> Iterator[StepRow]:
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
    yield StepRow(
        problem=problem,
        steps=steps,
        labels=labels,
        problem_id=_problem_id(where, row, problem),
        subset=optional_text(where, row, "subset") or subset,
        outcome=share_of(where, row, "final_answer_correct"),
        scores=scores_of(where, row, "scores", len(steps)),
        where=where,
    )


def _labels(
    where: str, row: Row, subset: str, problem_field: str = "problem", steps_field: str = "steps"
) -> StepRow:
    problem, steps = text_of(where, row, problem_field), texts_of(where, row, steps_field)
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
        soft_labels=tuple(None if label is None else float(label) for label in labels),
        where=where,
    )


def _own(where: str, row: Row, subset: str) -> Iterator[StepRow]:
    yield _labels(where, row, subset)


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


def _problem_id(where: str, row: Row, problem: str) -> str:
    return optional_text(where, row, "problem_id") or content_id("steps", problem)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


READERS: dict[StepForm, Callable[[str, Row, str], Iterable[StepRow]]] = {
    "labels": _own,
    "stepwise": _stepwise,
    "math_shepherd": _math_shepherd,
    "processbench": _processbench,
    "prmbench": _prmbench,
    "prm800k": _prm800k,
    "records": _records,
    "prm_labels": _prm_labels,
}
"""Form to the function that reads a row: its place, its fields and the subset where it names none."""
