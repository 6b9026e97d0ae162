"""Files of samples with scores: gathered by problem, and how a broken one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.data.sample_files import read_sample_files
from airls_ray.errors import DataError
from tests.unit.row_files import write

SAMPLE = {"problem_id": "p", "answer": "2", "correct": True, "scores": [0.5, 0.25], "log_prob": -3.5}


def test_samples_are_gathered_by_problem_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", SAMPLE, SAMPLE | {"problem_id": "q", "answer": None})
    second = write(tmp_path / "b.jsonl", {"problem_id": "p", "outcome": 0.4, "scores": []})
    problems = read_sample_files([first, second])[""]
    assert list(problems) == ["p", "q"]
    one, two = problems["p"]
    assert (one.answer, one.correct, one.scores, one.log_prob) == ("2", 1.0, (0.5, 0.25), -3.5)
    assert (two.answer, two.correct, two.scores, two.log_prob) == (None, 0.0, (), None)
    assert problems["q"][0].answer is None


RECORD = {"algorithm": "beam", "budget": 2, "seed": 0, "scorer": "prm", "problem_id": "p", "leaves": [SAMPLE]}


def test_searches_that_differ_in_the_scorer_alone_are_two(tmp_path: Path) -> None:
    other = RECORD | {"scorer": "policy_log_prob"}
    found = read_sample_files([write(tmp_path / "a.jsonl", RECORD, other)])
    assert [len(problems["p"]) for problems in found.values()] == [1, 1]


def test_records_that_are_given_twice_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", RECORD, RECORD | {"problem_id": "q"})
    second = write(tmp_path / "b.jsonl", RECORD | {"problem_id": "q"})
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: .* has a record of problem 'q' already"):
        read_sample_files([first, second])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"correct": None}, r"field 'correct' \(or 'outcome'\) must say whether the answer is right"),
        ({"correct": "yes"}, "field 'correct' must be true, false or a number from 0 to 1, but is text"),
        ({"scores": None}, "field 'scores' must be a list with one number a step"),
        ({"scores": [2]}, "number 1 of field 'scores' must lie between 0 and 1, but is 2"),
        ({"problem_id": 7}, "field 'problem_id' must be text, but is 7"),
        ({"problem_id": ["p"]}, "field 'problem_id' must be text, but is a list"),
        ({"answer": 7}, "field 'answer' must be text, but is 7"),
        ({"log_prob": "x"}, "field 'log_prob' must be a number, but is text"),
        ({"log_prob": 10**400}, "field 'log_prob' must be a number, but is 1000"),
        ({"correct": 10**400}, "field 'correct' must be true, false or a number from 0 to 1, but is 1000"),
        ({"leaves": [None]}, "entry 1 of field 'leaves' must be an object, but is absent or null"),
    ],
)
def test_a_broken_sample_is_one_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: " + sentence):
        read_sample_files([write(tmp_path / "a.jsonl", SAMPLE, SAMPLE | change)])
