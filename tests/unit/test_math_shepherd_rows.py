"""Rows of Math-Shepherd: where their steps and signs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.data.step_files import read_step_file
from airls_ray.errors import DataError
from tests.unit.row_files import write

MARKED = "Tom has 2 pens and buys 1. How many? Step 1: 2 + 1 = 3 ки\nStep 2: The answer is: 4 ки"


def shepherd(label: Any, text: str = MARKED, field: str = "label") -> dict[str, Any]:
    return {"input": text, field: label, "task": "GSM8K"}


def signs(text: str, *given: str) -> str:
    for sign in given:
        text = text.replace("ки", sign, 1)
    return text


@pytest.mark.parametrize(
    "row",
    [
        shepherd(signs(MARKED, "+", "-")),
        shepherd(["+", "-"]),
        shepherd(["+", "-"], field="value"),
        shepherd([True, 0]),
    ],
)
def test_math_shepherds_signs_stand_in_place_of_the_markers(tmp_path: Path, row: Any) -> None:
    (found,) = read_step_file(write(tmp_path / "a.jsonl", row))
    assert found.problem == "Tom has 2 pens and buys 1. How many?"
    assert found.steps == ("Step 1: 2 + 1 = 3", "Step 2: The answer is: 4")
    assert (found.labels, found.targets) == ((True, False), (1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "problem", "steps", "labels"),
    [
        ("1 + ки 1? Step 1: 2 ки", "1 +  1?", ("Step 1: 2",), (False,)),
        ("1 + 1? It is 2. ки 3 ки", "1 + 1?", ("It is 2.", "3"), (True, False)),
        ("1? step 1: a ки b ки c", "1?", ("step 1: a", "b", "c"), (True, False, None)),
    ],
    ids=["a marker in the problem", "no numbers", "text behind the last"],
)
def test_math_shepherds_odd_rows_are_read_as_far_as_they_say_something(
    tmp_path: Path, text: str, problem: str, steps: Any, labels: Any
) -> None:
    (row,) = read_step_file(write(tmp_path / "a.jsonl", shepherd(signs(text, "+", "-"), text)))
    assert (row.problem, row.steps, row.labels) == (problem, steps, labels)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (shepherd(MARKED[:-2] + "+"), "but has 'к' in place of number 1"),
        (shepherd("+"), "but has '' in place of number 1"),
        (shepherd(["+"]), "1 labels for the 2 markers"),
        (shepherd(["+", "x"]), "label 2 must be true, false, a number from 0 to 1 or null, but is text"),
        (shepherd(7), "field 'label' must be the text with signs or a list, but is 7"),
        (shepherd(["+"], "It is 2. ки"), "neither 'Step 1:' nor a question mark"),
        (shepherd(["+"], "Step 1: 2 ки"), "has no problem before its first step"),
    ],
)
def test_a_broken_row_of_math_shepherd_is_one_sentence(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: .*{said}"):
        read_step_file(write(tmp_path / "a.jsonl", shepherd(["+", "-"]), row))
