"""Files of labelled steps: what each form says, how it is told, and how a broken row is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.data.rows import read_rows
from airls_ray.data.step_files import CORRECT, read_step_file, read_step_files, step_rows
from airls_ray.errors import DataError
from tests.unit.row_files import write

PROCESS = {
    "id": "gsm8k-0",
    "problem": "1+1+1?",
    "steps": ["a", "b", "c"],
    "label": 1,
    "final_answer_correct": False,
}


CHANGED = {
    "original_question": "1+1?",
    "modified_question": "1+1 = ?",
    "original_process": ["1+1", "2"],
    "modified_process": ["1+1", "3", "3"],
    "error_steps": [2, 3],
    "classification": "circular",
}


OWN = {"problem": "1+1?", "steps": ["a", "b", "c"], "labels": [True, None, 0.25]}


def test_an_identifier_that_another_problem_has_already_is_made_of_the_text(tmp_path: Path) -> None:
    """Two files that each count from 0, and share a problem."""
    named = [[("0", "1+1?"), ("1", "2+2?")], [("0", "How tall is K2?"), ("1", " 2+2?"), ("5", "1+1?")]]
    files = [
        write(tmp_path / f"{at}.jsonl", *(OWN | {"problem_id": name, "problem": text} for name, text in rows))
        for at, rows in enumerate(named)
    ]
    first, second, other, again, same = (row.problem_id for row in read_step_files(files))
    assert (first, second, again, same) == ("0", "1", "1", "0")
    assert other not in (first, second)


def test_a_changed_problem_stays_with_the_one_it_was_made_from(tmp_path: Path) -> None:
    """Also where its original stands in another file: the second one's is dropped as the same."""
    other = CHANGED | {"modified_question": "one and one?"}
    files = [write(tmp_path / "a.jsonl", CHANGED), write(tmp_path / "b.jsonl", other)]
    rows = read_step_files(files)
    assert [row.problem for row in rows] == ["1+1?", "1+1 = ?", "one and one?"]
    assert len({row.problem_id for row in rows}) == 1


def test_processbench_counts_from_0_and_says_nothing_of_later_steps(tmp_path: Path) -> None:
    right = PROCESS | {"label": -1, "final_answer_correct": True}
    wrong, all_right = read_step_file(write(tmp_path / "gsm8k.jsonl", PROCESS, right))
    assert wrong.labels == (True, False, None)
    assert (wrong.first_error, wrong.outcome, wrong.subset) == (1, 0.0, "gsm8k")
    assert all_right.labels == (True, True, True)
    assert (all_right.first_error, all_right.outcome) == (-1, 1.0)
    assert wrong.problem_id == all_right.problem_id


STEPWISE = {"prompt": "1+1+1?", "completions": ["a", "b"], "labels": [True, False]}


def test_trls_stepwise_form_is_a_solution_with_a_label_a_step(tmp_path: Path) -> None:
    hard, soft = read_step_file(
        write(tmp_path / "trl.jsonl", STEPWISE, STEPWISE | {"labels": [0.75, None], "problem_id": "x"})
    )
    assert (hard.problem, hard.steps, hard.labels) == ("1+1+1?", ("a", "b"), (True, False))
    assert (hard.targets, soft.targets) == ((1.0, 0.0), (0.75, None))
    assert (soft.labels, soft.problem_id) == ((True, None), "x")


def test_a_broken_stepwise_row_names_the_fields_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: field 'completions' must be a list of texts"):
        read_step_file(write(tmp_path / "a.jsonl", STEPWISE, STEPWISE | {"completions": "a"}))


def test_bad_rows_may_come_as_errors_between_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good, wrong = json.dumps(PROCESS), json.dumps(PROCESS | {"label": 7})
    path.write_text(f"7\n{good}\n{wrong}\n{{\n{good}\n")
    found = list(step_rows(path))
    assert [isinstance(row, DataError) for row in found] == [True, False, True, True, False]
    assert [str(row).partition(": ")[0][-1] for row in found if isinstance(row, DataError)] == ["1", "3", "4"]


def test_a_first_row_of_no_known_form_is_one_error_among_the_others(tmp_path: Path) -> None:
    first, second = step_rows(write(tmp_path / "a.jsonl", {"x": 1}, PROCESS))
    assert isinstance(first, DataError) and not isinstance(second, DataError)


def test_prmbench_counts_from_1_and_gives_the_original_as_right(tmp_path: Path) -> None:
    original, changed = read_step_file(write(tmp_path / "a.jsonl", CHANGED))
    assert (original.problem, original.steps, original.labels) == ("1+1?", ("1+1", "2"), (True, True))
    assert (changed.problem, changed.steps) == ("1+1 = ?", ("1+1", "3", "3"))
    assert changed.labels == (True, False, False)
    assert (original.classification, changed.classification) == (CORRECT, "circular")
    assert original.pair == changed.pair
    assert original.problem_id == changed.problem_id


def test_an_original_that_is_changed_in_several_ways_comes_once(tmp_path: Path) -> None:
    other = CHANGED | {"classification": "deception"}
    elsewhere = CHANGED | {"original_process": ["2"], "classification": "confidence"}
    first, second = (
        write(tmp_path / "a.jsonl", CHANGED, other),
        write(tmp_path / "b.jsonl", CHANGED, elsewhere),
    )
    kinds = [row.classification for row in read_step_files([first, second])]
    assert kinds == [CORRECT, "circular", "deception", "circular", CORRECT, "confidence"]


def test_wrong_steps_behind_the_last_one_are_ignored_and_counted(tmp_path: Path) -> None:
    _, changed = read_step_file(write(tmp_path / "a.jsonl", CHANGED | {"error_steps": [2, 4, 9]}))
    assert changed.labels == (True, False, True)
    assert changed.ignored == 2


def test_own_labels_may_be_soft_or_missing(tmp_path: Path) -> None:
    more = {"problem_id": "x", "subset": "hard", "correct": 1, "answer": "2", "scores": [0, 0.5, 1]}
    plain, full = read_step_file(write(tmp_path / "mine.jsonl", OWN, OWN | more | {"labels": [1, 0, 0.51]}))
    assert plain.labels == (True, None, False)
    assert (plain.subset, plain.outcome, plain.scores) == ("mine", None, None)
    assert full.labels == (True, False, True)
    assert (full.problem_id, full.subset, full.outcome, full.answer) == ("x", "hard", 1.0, "2")
    assert full.scores == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [([1, 0, None], 1), ([1, None, 0], None), ([1, 1, 1], -1), ([None, 1, 1], None), ([0, 0, 1], 0)],
)
def test_the_first_wrong_step_is_known_where_all_before_it_are(
    tmp_path: Path, labels: list[int | None], wanted: int | None
) -> None:
    (row,) = read_step_file(write(tmp_path / "a.jsonl", OWN | {"labels": labels}))
    assert row.first_error == wanted


def test_scores_of_prmbench_belong_to_the_changed_solution(tmp_path: Path) -> None:
    given = CHANGED | {"scores": [0.9, 0.1, 0.2], "original_scores": [0.8, 0.7]}
    original, changed = read_step_file(write(tmp_path / "a.jsonl", given))
    assert original.scores == (0.8, 0.7)
    assert changed.scores == (0.9, 0.1, 0.2)


# ------------------------------------------------------------------------------ kinds of file
def test_a_json_list_and_a_parquet_file_read_as_the_lines_do(tmp_path: Path) -> None:
    rows = [PROCESS, PROCESS | {"problem": "2?", "label": 0}]
    lines = read_step_file(write(tmp_path / "x.jsonl", *rows))
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    for suffix in ("json", "parquet"):
        found = read_step_file(tmp_path / f"x.{suffix}")
        assert [(row.problem, row.labels) for row in found] == [(row.problem, row.labels) for row in lines]
        assert found[1].where == f"{tmp_path / 'x'}.{suffix}, row 2"


def test_a_given_form_goes_before_the_fields(tmp_path: Path) -> None:
    both = write(tmp_path / "a.jsonl", OWN | {"label": 2})
    assert read_step_file(both)[0].labels == (True, None, False)
    assert read_step_file(both, "processbench")[0].labels == (True, True, False)


def test_blank_lines_are_passed_over_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(OWN)}\n\n{json.dumps(OWN | {'labels': [1]})}\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: field 'labels'"):
        read_step_file(path)


# ------------------------------------------------------------------------------- broken rows
@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (PROCESS | {"label": 3}, "from -1 to 2, but is 3"),
        (PROCESS | {"label": True}, "but is true or false"),
        (PROCESS | {"steps": []}, "field 'steps' must be a list of texts, but is an empty list"),
        (PROCESS | {"steps": ["a", 2, "c"]}, "text 2 of field 'steps' is 2"),
        (PROCESS | {"problem": ""}, "field 'problem' must be text, but is empty text"),
        (PROCESS | {"scores": [0.1]}, "field 'scores' has 1 numbers for 3 steps"),
        (
            PROCESS | {"scores": [0.1, 1.5, 0]},
            "number 2 of field 'scores' must lie between 0 and 1, but is 1.5",
        ),
        (PROCESS | {"scores": [0.1, float("nan"), 0]}, "between 0 and 1, but is nan"),
        (OWN | {"labels": [1, 0]}, "one value a step, 3: 2 values"),
        (
            OWN | {"labels": [1, 0, -1]},
            "label 3 must be true, false, a number from 0 to 1 or null, but is -1",
        ),
        (CHANGED | {"error_steps": [0]}, r"steps counted from 1, but is \[0\]"),
        (CHANGED | {"error_steps": None}, "but is absent or null"),
        (CHANGED | {"classification": None}, "field 'classification' must be text"),
    ],
)
def test_a_broken_row_is_one_sentence_with_file_and_line(tmp_path: Path, row: Any, sentence: str) -> None:
    good = {"label": PROCESS, "labels": OWN, "error_steps": CHANGED}
    (first,) = [good[name] for name in good if name in row]
    with pytest.raises(DataError, match=sentence) as caught:
        read_step_file(write(tmp_path / "a.jsonl", first, row))
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}, line 2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a.jsonl has no rows"),
        ("{", r"a\.jsonl, line 1: not a JSON object \(.* at column 2\)"),
        ("1\n", r"a\.jsonl, line 1: must be an object, but is 1"),
        (
            '{"x": 1}\n',
            r"line 1: the fields x fit no form of labelled steps \(labels: problem, steps, labels;",
        ),
    ],
)
def test_a_file_of_no_rows_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_step_file(tmp_path / "a.jsonl")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        with pytest.raises(DataError, match=rf"cannot read .*nowhere\.{suffix}"):
            list(read_rows(tmp_path / f"nowhere.{suffix}"))


# --------------------------------------------------------------------------- the published file
PUBLISHED = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere")) / "prmbench" / "subset400.jsonl"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="AIRLS_RAY_TEST_DATA has no prmbench/subset400.jsonl")
def test_the_published_prmbench_subset_reads_as_its_fields_say() -> None:
    raw = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    rows = read_step_file(PUBLISHED)
    changed = [row for row in rows if row.classification != CORRECT]
    assert len(changed) == len(raw) == 394
    assert sum(row.ignored > 0 for row in changed) == 11
    for row, fields in zip(changed, raw, strict=True):
        wrong = {number for number, label in enumerate(row.labels, 1) if not label}
        assert wrong == {step for step in fields["error_steps"] if step <= len(fields["modified_process"])}
    originals = {(one["original_question"], *one["original_process"]) for one in raw}
    assert len(rows) - len(changed) == len(originals)


def test_records_of_a_search_give_a_row_for_each_finished_response(tmp_path: Path) -> None:
    leaf = {
        "steps": ["a;", "b;"],
        "step_truth": [True, False],
        "scores": [0.9, 0.2],
        "outcome": 0.0,
        "answer": "7",
    }
    unknown = {**leaf, "step_truth": None, "answer": None}
    record = {"problem_id": "p", "prompt": "1+2=", "leaves": [leaf, unknown]}
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record) + "\n")
    first, second = read_step_file(path)
    assert (first.problem, first.steps, first.labels) == ("1+2=", ("a;", "b;"), (True, False))
    assert (first.scores, first.outcome, first.first_error) == ((0.9, 0.2), 0.0, 1)
    assert second.labels == (None, None)


def test_labels_of_train_prm_are_measured_against_the_truth(tmp_path: Path) -> None:
    row = {
        "problem_id": "p", "prompt_text": "1+2=", "step_texts": ["a;", "b;"], "labels": [1.0, 1.0],
        "step_truth": [True, False], "outcome": 1.0,
    }  # fmt: skip
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n")
    [found] = read_step_file(path)
    assert (found.problem, found.labels, found.outcome) == ("1+2=", (True, False), 1.0)
