"""Test problems in the training data."""

import json

import pytest

from airls_ray.cli import main as cli
from airls_ray.data.contamination import Text, find_contamination, normalised


def texts(*several):
    return [Text(f"row {number}", text) for number, text in enumerate(several, 1)]


def words(start, count):
    return " ".join(f"w{number}" for number in range(start, start + count))


def test_equal_texts_are_found_whatever_their_case_and_spaces():
    found = find_contamination(texts("Two  and\ntwo?"), texts("other", "two and two?"))
    assert (found.equal, found.overlapping, found.too_short) == (1, 0, 2)
    assert (found.matches[0].test, found.matches[0].train, found.matches[0].share) == ("row 2", "row 1", 1.0)


def test_signs_make_a_difference_between_texts():
    assert normalised("What is 3 - 5?") != normalised("What is 3 + 5?")


@pytest.mark.parametrize(("length", "shared"), [(12, 0), (13, 1), (15, 3)])
def test_overlap_counts_ngrams_by_hand(length, shared):
    test = f"{words(0, length)} {words(100, 10)}"
    found = find_contamination(texts(f"begin, {words(0, length)}. End"), texts(test))
    assert found.overlapping == (shared > 0)
    if shared:
        (match,) = found.matches
        assert (match.shared, match.share) == (shared, shared / (length + 10 - 12))
        assert match.example == words(0, 13)


def test_the_length_of_ngrams_is_a_setting():
    train, test = texts(words(0, 5)), texts(words(0, 4) + " x")
    assert find_contamination(train, test, 4).overlapping == 1
    assert find_contamination(train, test, 5).overlapping == 0


def test_a_test_row_counts_once_and_names_the_closest_training_rows():
    train = texts(*(words(0, 13 + more) for more in range(5)))
    found = find_contamination(train, texts(words(0, 40)))
    assert (found.overlapping, found.half) == (1, 0)
    assert [match.train for match in found.matches] == ["row 5", "row 4", "row 3"]


def test_the_command_prints_counts_and_writes_all_rows(tmp_path, capsys):
    for name, questions in (("train", ["a b c", "d e f"]), ("test", ["D e f", "g h i"])):
        rows = [{"question": q, "answer": "#### 1"} for q in questions]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test, report = (str(tmp_path / name) for name in ("train.jsonl", "test.jsonl", "report.json"))
    command = ["data", "contamination", train, test, "--format", "gsm8k", "--output", report]
    assert cli.run(command) == 0
    assert "equal texts" in capsys.readouterr().out
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["equal"] == 1 and found["matches"][0]["test"] == f"{test}, row 1"


def test_the_help_names_both_files_as_its_text_does(capsys):
    assert cli.run(["data", "contamination", "--help"]) == 0
    said = capsys.readouterr().out
    assert "{TRAIN} {TEST}" in said and "SOURCE" not in said.partition("Arguments")[0]


def test_half_of_the_ngrams_is_counted_as_half() -> None:
    """Two n-grams, of which the training row has one."""
    found = find_contamination(texts(words(0, 5)), texts(words(0, 4) + " x"), 4)
    assert (found.overlapping, found.half) == (1, 1)
