"""Mathematical answers by hand: where they stand, how they are written, and what they equal."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airls_ray.config.schema import FileTaskConfig
from airls_ray.config.task_choice import to_graders
from airls_ray.data.schemas import GRADES, ROLLOUTS
from airls_ray.evaluation.rollouts import summarise_rollouts
from airls_ray.grading.pool import GradeRequest, GradeResult, GraderPool
from airls_ray.grading.table import results_to_table
from airls_ray.tasks.answers import after_hash, announced, last_boxed
from airls_ray.tasks.math_grader import grade_math, read_response
from tests.tiny import make_rollouts
from tests.unit.test_advantages import grades_of

DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{\{2, 3\}}", r"\{2, 3\}"),
        (r"\boxed 7$", "7"),
        (r"\boxed{1} and \boxed{never closed", "1"),
        (r"\boxed{ }", None),
        ("nothing", None),
    ],
)
def test_the_last_whole_box_counts(text, answer):
    assert last_boxed(text) == answer


def test_the_line_behind_the_last_mark_counts():
    assert after_hash("#### 1\n####  2,000 \nbye") == "2,000"
    assert after_hash("1") is None and after_hash("####") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 3.14. Bye", "3.14"),
        ("Final answer: $x+1$.", "$x+1$"),
        ("so\nA: 18", "18"),
        ("The answer is: **12**.", "12"),
        ("the answer to this is (C). It", "(C)"),
        ("I do not answer", None),
    ],
)
def test_answers_announced_in_words_are_found(text, answer):
    assert announced(text) == answer


def test_a_box_goes_before_a_mark_and_a_mark_before_words():
    for said, answer in (("#### 2\n\\boxed{3}", "3"), ("#### 2", "2"), ("<answer>4</answer>", "4")):
        found = read_response(f"The answer is 1\n{said}")
        assert found is not None and found.name == answer


SAME = [
    ("1234", "\\boxed{1,234}"),
    ("1,234,567", "#### 1234567"),
    ("11,\\! 111", "\\boxed{11111}"),
    ("18", "#### $18"),
    ("\\$18.90", "The answer is $18.90."),
    ("18", "The answer is 18 dollars."),
    ("5", "\\boxed{5 \\text{ cm}}"),
    ("5", "\\boxed{5\\text{ cm}^2}"),
    ("5", "A: 5 cm"),
    ("1/2", "\\boxed{0.5}"),
    ("\\frac{1}{2}", "The answer is 2/4"),
    ("0.333333", "\\boxed{\\frac13}"),
    ("1.414214", "\\boxed{\\sqrt{2}}"),
    ("50", "\\boxed{50\\%}"),
    ("50\\%", "#### 50"),
    ("50\\%", "\\boxed{0.5}"),
    ("\\{1, 2, 3\\}", "\\boxed{\\{3, 1, 2\\}}"),
    ("1, 2", "\\boxed{2, 1}"),
    ("[0, 1)", "\\boxed{[0,1)}"),
    ("(-\\infty, 3]", "\\boxed{(-\\infty,3]}"),
    ("x = 5", "\\boxed{5}"),
    ("5", "\\boxed{x + y = 5}"),
    ("2\\pi", "\\boxed{2 \\pi}"),
    ("-3", "#### -3"),
    ("\\text{Evelyn}", "\\boxed{Evelyn}"),
    ("x^2 + 2x + 1", "\\boxed{(x+1)^2}"),
    ("30^\\circ", "\\boxed{30}"),
]
OTHER = [
    ("5", "\\boxed{5x}"),
    ("5", "\\boxed{5 million}"),
    ("2", "\\boxed{2\\pi}"),
    ("2", "#### 2 pi"),
    ("1234", "\\boxed{1,235}"),
    ("[0, 1)", "\\boxed{[0,1]}"),
    ("\\{1, 2\\}", "\\boxed{\\{1, 2, 3\\}}"),
    ("1/2", "\\boxed{1/3}"),
    ("3", "\\boxed{-3}"),
    ("(1, 2)", "\\boxed{(2, 1)}"),
    ("3", "The answer is 3 or 4"),
    ("1", "\\boxed{1/0}"),
    ("0", "\\boxed{5x - 7y + 11z + 4 = 0}"),
]


@pytest.mark.parametrize(("answer", "response"), SAME)
def test_the_same_answer_in_another_form_is_right(answer, response):
    assert grade_math(answer, response).outcome == 1.0


@pytest.mark.parametrize(("answer", "response"), OTHER)
def test_another_answer_is_wrong(answer, response):
    assert grade_math(answer, response).outcome == 0.0


def test_equal_values_have_one_name_for_votes():
    texts = ("\\boxed{0.5}", "#### 1/2", "answer: $\\frac{2}{4}$.", "it is $\\frac12$", "so we get 0.5")
    assert {grade_math("1/2", text).answer for text in texts} == {"1/2"}


def test_a_right_answer_that_cannot_be_read_is_no_silent_zero():
    grade = grade_math(" ??? ", "\\boxed{1}")
    assert (grade.outcome, grade.reason) == (0.0, "unparsable")


def test_an_unreadable_answer_comes_through_the_pool_by_its_status():
    config = FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl")
    items = [GradeRequest("p", answer, "{}", "\\boxed{1}") for answer in (" . ", "1")]
    with GraderPool(to_graders(config), 1, 20.0) as pool:
        assert [(r.outcome, r.status) for r in pool.grade(items)] == [(0.0, "unparsable"), (1.0, "graded")]


def test_every_zero_that_is_the_graders_is_in_the_metrics():
    results = [
        GradeResult(1.0, "1", None, "graded"),
        GradeResult(0.0, None, None, "graded"),
        GradeResult(0.0, None, None, "unparsable"),
        GradeResult(0.0, None, None, "timeout"),
        GradeResult(0.0, None, None, "crashed"),
    ]
    size = len(results)
    columns = {
        "group": pa.array(np.zeros(size, np.int64)),
        "response": pa.array([[1]] * size, pa.list_(pa.int32())),
        "step_ends": pa.array([[1]] * size, pa.list_(pa.int32())),
        "logprobs": pa.array([[0.0]] * size, pa.list_(pa.float32())),
        "finish": pa.array(["stop"] * size).dictionary_encode().cast(ROLLOUTS.field("finish").type),
    }
    grades = results_to_table(results)
    assert grades.schema.equals(GRADES)
    found = summarise_rollouts(pa.table(columns), grades)
    for name in ("unparsable", "timeout", "crashed", "no_answer"):
        assert found[f"grade/{name}_share"] == pytest.approx(0.2)


def test_a_group_is_solved_by_any_of_its_rollouts_and_constant_by_all_alike():
    outcomes = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.4, 0.2]
    size = len(outcomes)
    columns = {
        "group": pa.array(np.repeat(np.arange(4), 2)),
        "response": pa.array([[1]] * size, pa.list_(pa.int32())),
        "step_ends": pa.array([[1]] * size, pa.list_(pa.int32())),
        "logprobs": pa.array([[0.0]] * size, pa.list_(pa.float32())),
        "finish": pa.array(["stop"] * size).dictionary_encode().cast(ROLLOUTS.field("finish").type),
    }
    grades = results_to_table([GradeResult(one, "1", None, "graded") for one in outcomes])
    found = summarise_rollouts(pa.table(columns), grades)
    assert (found["groups/solved_share"], found["groups/constant_share"]) == (0.5, 0.5)


@pytest.mark.skipif(not DATA.is_dir(), reason="AIRLS_RAY_TEST_DATA is not set")
def test_gold_answers_of_math500_equal_themselves():
    rows = [json.loads(line) for line in (DATA / "math/math500_test.jsonl").open()]
    wrong = [row["answer"] for row in rows if grade_math(row["answer"], row["solution"]).outcome < 1]
    assert wrong == []


@pytest.mark.skipif(not DATA.is_dir(), reason="AIRLS_RAY_TEST_DATA is not set")
def test_verdicts_on_gsm8k_solutions_are_those_that_were_published():
    rows = [json.loads(line) for line in (DATA / "gsm8k/example_model_solutions.jsonl").open()]
    differing = [
        (row["ground_truth"][-20:], solution["solution"][-40:])
        for row in rows
        for solution in row.values()
        if isinstance(solution, dict)
        and (grade_math(row["ground_truth"].rpartition("A: ")[2], solution["solution"]).outcome == 1)
        != solution["is_correct"]
    ]
    assert differing == []


def test_half_an_outcome_solves_no_problem() -> None:
    rollouts = make_rollouts(2, 2)
    grades = grades_of(rollouts).set_column(0, "outcome", pa.array([0.5, 0.5, 0.75, 0.0], pa.float32()))
    assert summarise_rollouts(rollouts, grades)["groups/solved_share"] == 0.5
