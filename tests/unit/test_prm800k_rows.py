"""Rows of PRM800K: how far they are read, and what the raters did not choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.data.step_files import StepRow, read_step_file, step_rows
from airls_ray.errors import DataError
from tests.unit.row_files import write


def rated(*ratings: float | None, end: str = "found_error", **last: Any) -> dict[str, Any]:
    """A row of PRM800K whose raters went on from every step but a wrong last one."""
    steps = [
        {
            "completions": [{"text": f"s{at}", "rating": rating}],
            "chosen_completion": None if rating == -1 else 0,
            "human_completion": None,
        }
        for at, rating in enumerate(ratings)
    ]
    steps[-1] |= last
    return {"question": {"problem": "1+1?"}, "label": {"steps": steps, "finish_reason": end}}


# -------------------------------------------------------------------------------- the forms
@pytest.mark.parametrize(
    ("row", "steps", "labels"),
    [
        (rated(1, 0, -1), ["s0", "s1", "s2"], [True, True, False]),
        (rated(1, 1, end="solution"), ["s0", "s1"], [True, True]),
        (rated(-1, 1), ["s0"], [False]),
        (rated(1, None, end="solution"), ["s0", "s1"], [True, None]),
        (rated(1.0, -1.0, chosen_completion=None), ["s0", "s1"], [True, False]),
        (rated(1, -1, chosen_completion=0.0, end="solution"), ["s0", "s1"], [True, False]),
        (
            rated(1, -1, human_completion={"text": "own", "rating": 1}, end="solution"),
            ["s0", "own"],
            [True, True],
        ),
    ],
)
def test_prm800k_is_read_up_to_the_first_wrong_step(
    tmp_path: Path, row: Any, steps: list[str], labels: list[Any]
) -> None:
    (found,) = read_step_file(write(tmp_path / "phase2_test.jsonl", row))
    assert (found.problem, found.steps, found.labels) == ("1+1?", tuple(steps), tuple(labels))


def test_prm800ks_useless_rows_are_left_out(tmp_path: Path) -> None:
    useless = [rated(1, end="bad_problem"), rated(1, end="give_up"), rated(1) | {"label": {"steps": []}}]
    assert len(read_step_file(write(tmp_path / "a.jsonl", *useless, rated(1)))) == 1
    with pytest.raises(DataError, match="has no rated step in its 3 rows"):
        read_step_file(write(tmp_path / "b.jsonl", *useless))


@pytest.mark.parametrize(("text", "finished"), [("So 2.\n\n# Answer\n\n2", True), ("So 2.", False)])
def test_prm800ks_solutions_end_with_a_headed_answer(tmp_path: Path, text: str, finished: bool) -> None:
    last = {"completions": [{"text": text, "rating": -1}]}
    (found,) = read_step_file(write(tmp_path / "a.jsonl", rated(1, -1, **last)))
    assert found.finished is finished


def test_prm800ks_other_steps_stand_behind_those_before_them(tmp_path: Path) -> None:
    row = rated(1, 1, 1, end="solution")
    others = [
        {"text": "bad", "rating": -1},
        {"text": "so so", "rating": 0},
        {"text": "unseen", "rating": None},
    ]
    row["label"]["steps"][1]["completions"] += others
    found = list(step_rows(write(tmp_path / "a.jsonl", row), alternatives=True))
    assert [(one.steps, one.labels) for one in found if isinstance(one, StepRow)] == [
        (("s0", "s1", "s2"), (True, True, True)),
        (("s0", "bad"), (None, False)),
        (("s0", "so so"), (None, True)),
    ]
    assert len(list(step_rows(tmp_path / "a.jsonl"))) == 1
