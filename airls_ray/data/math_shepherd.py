"""Rows of Math-Shepherd (arXiv 2312.08935): a solution as one text, with a marker behind every step."""

from __future__ import annotations

import re
from typing import Any

from airls_ray.data.rows import Row, kind_of, text_of
from airls_ray.errors import DataError

MARKER = "ки"
"""Stands behind every step of `input`; in `label` a sign stands in its place."""
_SIGNS: dict[Any, Any] = {"+": True, "-": False}
_FIRST_STEP = re.compile(r"step 1\s*:", re.IGNORECASE)


def is_math_shepherd(row: Row) -> bool:
    """Whether a row has the marked text and its labels."""
    text = row.get("input")
    return isinstance(text, str) and MARKER in text and bool(row.keys() & {"label", "value"})


def marked_steps(where: str, row: Row) -> dict[str, Any]:
    """Return a row as one with `problem`, `steps` and `labels`.

    The problem ends where "Step 1:" begins, else behind the first question mark. `label` is the text of
    `input` with `+` or `-` for each marker, or (as OpenRLHF has it, also in `value`) a list with one label
    for each: a sign, true, false, a number from 0 to 1 or null. A marker within the problem marks no step,
    so its label is dropped: the published file has a few. Text behind the last marker is a step without a
    label.

    Raises:
        DataError: a text or a label is missing or of another length, or nothing shows where the problem ends.
    """
    text = text_of(where, row, "input")
    marks = [match.start() for match in re.finditer(MARKER, text)]
    labels = _labels(where, row, text, marks)
    begin = _end_of_problem(where, text)
    problem, steps, found = text[:begin].replace(MARKER, "").strip(), [], []
    for mark, label in zip([*marks, len(text)], [*labels, None], strict=True):
        if mark < begin:
            continue
        step = text[begin:mark].strip()
        begin = mark + len(MARKER)
        if step or mark < len(text):
            steps.append(step)
            found.append(label)
    if not problem:
        raise DataError(f"{where}: field 'input' has no problem before its first step")
    return {**row, "problem": problem, "steps": steps, "labels": found}


def _labels(where: str, row: Row, text: str, marks: list[int]) -> list[Any]:
    """The label of each marker."""
    given = row["value"] if row.get("value") is not None else row.get("label")
    if isinstance(given, list):
        if len(given) != len(marks):
            raise DataError(
                f"{where}: {len(given)} labels for the {len(marks)} markers {MARKER!r} of 'input'"
            )
        return [_SIGNS.get(label, label) if isinstance(label, str) else label for label in given]
    if not isinstance(given, str):
        raise DataError(
            f"{where}: field 'label' must be the text with signs or a list, but is {kind_of(given)}"
        )
    shorter = len(MARKER) - 1  # a sign is one character
    places = [mark - number * shorter for number, mark in enumerate(marks)]
    signs = [given[place : place + 1] for place in places]
    for number, sign in enumerate(signs, 1):
        if sign not in _SIGNS:
            raise DataError(
                f"{where}: field 'label' must be 'input' with + or - for each {MARKER!r}, but has {sign!r} "
                f"in place of number {number}"
            )
    return [_SIGNS[sign] for sign in signs]


def _end_of_problem(where: str, text: str) -> int:
    first = _FIRST_STEP.search(text)
    if first is not None:
        return first.start()
    question = text.partition(MARKER)[0].find("?")
    if question < 0:
        raise DataError(
            f"{where}: field 'input' has neither 'Step 1:' nor a question mark before its first {MARKER!r}, "
            "so where the problem ends is not known; give 'problem', 'steps' and 'labels' instead"
        )
    return question + 1
