"""A user's own problems: splits, epochs and graders."""

import json
from collections import Counter
from itertools import islice

import pytest

from airls_ray.config.schema import FileTaskConfig
from airls_ray.errors import DataError
from airls_ray.tasks import make_task
from airls_ray.tasks.graders.exact import Grader
from airls_ray.tasks.math_grader import grade_math


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(names):
    return [
        {"prompt": f"What is {name}?", "answer": name, "trace": f"It is\n\n#### {name}"} for name in names
    ]


def task(folder, train="abc", test="xyz", **settings):
    train_file = write(folder / "train.jsonl", rows(train))
    test_file = write(folder / "test.jsonl", rows(test))
    return make_task(FileTaskConfig(train_file=train_file, test_file=test_file, **settings))


def test_every_epoch_has_every_problem_once_in_an_order_of_its_own(tmp_path):
    answers = [p.answer for p in islice(task(tmp_path, "abcdefgh").problems("train", 1), 32)]
    epochs = [answers[start : start + 8] for start in range(0, 32, 8)]
    assert all(sorted(epoch) == list("abcdefgh") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_streams_start_anywhere(tmp_path):
    made = task(tmp_path, "abcdefgh")
    assert list(islice(made.problems("train", 1, 13), 9)) == list(islice(made.problems("train", 1), 22))[13:]


def test_the_test_set_keeps_the_order_of_the_file_up_to_its_size(tmp_path):
    made = task(tmp_path, test="zyxw", test_problems=3)
    assert [problem.answer for problem in made.problems("test", 5)] == ["z", "y", "x"]


def test_a_problem_in_both_files_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"What is c\?.* occurs in both .*train.jsonl and .*test.jsonl"):
        next(task(tmp_path, "abc", "xcb").problems("train", 0))


def test_files_that_number_their_rows_alike_have_different_problems(tmp_path):
    for name in ("train", "test"):
        row = {"id": 0, "problem": f"What is {name}?", "answer": "1"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    files = {f"{name}_file": tmp_path / f"{name}.jsonl" for name in ("train", "test")}
    made = make_task(FileTaskConfig(**files, fields={"prompt": "problem", "problem_id": "id"}))
    assert next(made.problems("train", 0)).problem_id == next(made.problems("test", 0)).problem_id == "0"


def test_repeats_within_a_file_are_allowed(tmp_path):
    answers = Counter(p.answer for p in islice(task(tmp_path, "aab").problems("train", 0), 3))
    assert answers == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("response", "outcome", "answer"),
    [
        ("so\n#### 12 ", 1.0, "12"),
        ("#### 13\n#### 12", 1.0, "12"),  # the last marker counts
        ("the answer\n12\n", 1.0, "12"),  # no marker: the last line
        ("#### 12.0", 0.0, "12.0"),
        ("####", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_exact_grades_by_hand(response, outcome, answer):
    grade = Grader().grade(response, "12", "####")
    assert (grade.outcome, grade.answer) == (outcome, answer)


@pytest.mark.parametrize(
    ("answer", "response", "outcome"),
    [
        ("\\frac{1}{2}", "Thus the answer is $0.5$.", 1.0),
        ("(3,\\pi/2)", "\\boxed{(3, \\frac{\\pi}{2})}", 1.0),
        ("18", "She makes 9 * 2 = $18 every day.\n#### 18", 1.0),
        ("18", "#### 19", 0.0),
        ("18", "no idea", 0.0),
    ],
)
def test_math_grades_by_hand(answer, response, outcome):
    assert grade_math(answer, response).outcome == outcome


def test_math_answers_are_equal_exactly_for_equal_values():
    half, same, other = (grade_math("1", text).answer for text in ("$\\frac{2}{4}$", "$\\frac12$", "$2$"))
    assert half == same == "1/2" and other == "2"


def test_math_without_an_answer_gives_none():
    assert grade_math("18", "no idea").answer is None


def test_math_needs_no_alarm_signal():
    """It must work outside a main thread, where SIGALRM would turn into a wrong grade."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(grade_math, "7", "$7$").result().outcome == 1.0


def test_step_truth_and_vocabulary_are_unknown(tmp_path):
    made = task(tmp_path)
    assert made.vocabulary() is None
    assert made.step_truth(next(made.problems("train", 0)), ["It is\n\n", "a"]) is None


def test_a_format_of_programs_names_the_task_that_reads_it():
    from airls_ray.config import load_config
    from airls_ray.errors import ConfigError

    with pytest.raises(
        ConfigError, match=r"task\.format: must be a format of answers, but mbpp .* set task\.name=code"
    ):
        load_config(None, ["task=file", "task.train_file=a", "task.test_file=b", "task.format=mbpp"])
