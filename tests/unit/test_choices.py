"""Multiple choice: the drawn order, and letters mapped back."""

import json

import pytest

from airls_ray.config.schema import FileTaskConfig
from airls_ray.data.importing import import_problems
from airls_ray.tasks import Problem, make_task
from airls_ray.tasks.choices import grade_choice, with_choices

OPTIONS = ["red", "green", "blue", "grey"]
GPQA = {
    "Question": "Colour?",
    "Correct Answer": "red",
    "Incorrect Answer 1": "green",
    "Incorrect Answer 2": "blue",
    "Incorrect Answer 3": "grey",
    "Explanation": "Since it is.",
    "Record ID": "rec1",
}


def shown_letter(problem, option):
    (line,) = [line for line in problem.prompt.splitlines() if line.endswith(f") {option}")]
    return line[0]


def test_the_order_depends_on_the_problem_alone_and_differs_between_problems():
    orders = [
        tuple(with_choices(Problem(f"p{i}", "q", ""), OPTIONS, 0).details["permutation"]) for i in range(200)
    ]
    again = with_choices(Problem("p7", "q", ""), OPTIONS, 0).details["permutation"]
    assert tuple(again) == orders[7] and len(set(orders)) == 24


@pytest.mark.parametrize("number", range(8))
def test_the_shown_letter_of_the_right_option_is_right_and_no_other(number):
    problem = with_choices(Problem(f"p{number}", "q", ""), OPTIONS, 2)
    for source, option in enumerate(OPTIONS):
        grade = grade_choice(problem, f"The answer is ({shown_letter(problem, option)}).")
        assert (grade.outcome, grade.answer) == (float(option == "blue"), "ABCD"[source])


@pytest.mark.parametrize(
    "form",
    [
        "\\boxed{%s}",
        "\\boxed{\\text{%s}}",
        "#### %s",
        "Answer: %s) it",
        "(%s)",
        "%s",
        "so it is **%s**",
        "I take (%s)",
    ],
)
def test_letters_are_found_in_every_dress(form):
    problem = with_choices(Problem("x", "q", ""), OPTIONS, 0)
    assert grade_choice(problem, form % shown_letter(problem, "red")).outcome == 1.0


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is a decrease in entropy, option (C).", "C"),
        ("The answer is: A combination of both, which is (C).", "C"),
        ("Answer: I think it is (C)", "C"),
        ("The answer is (a decrease), so **C**", "C"),
        ("\\boxed{\\text{a decrease}}", None),
        ("The answer is i think the second", None),
        ("The answer is a 50 % rise", None),
        ("The answer is e.g. a rise", None),
        ("The correct answer is a) no, not (C)", "A"),
        ("The answer is a.", "A"),
        ("The answer is (b)", "B"),
        ("the answer is b: green", "B"),
        ("The answer is **b** because it is green", "B"),
        ("The answer is a, since it is red", "A"),
        ("The answer is option a with its warm tone", "A"),
        ("The answer is A because of (C)", "A"),
        ("The answer is A and nothing else", "A"),
        ("The answer is B no doubt", "B"),
        ("Answer: A Red", "A"),
        ("\\boxed{d}", "D"),
        ("c", "C"),
    ],
)
def test_an_article_is_no_letter(response, letter):
    problem = Problem("x", "q", "", details={"choices": list("wxyzstuvr"), "permutation": list(range(9))})
    assert grade_choice(problem, response).answer == letter


@pytest.mark.parametrize("response", ["", "I do not know", "The answer is (E).", "A long time ago"])
def test_no_letter_is_no_answer(response):
    problem = with_choices(Problem("x", "q", ""), OPTIONS, 0)
    assert grade_choice(problem, response).answer is None


def test_gpqa_rows_become_problems_whose_trace_is_right(tmp_path):
    path = tmp_path / "gpqa.jsonl"
    path.write_text(json.dumps(GPQA) + "\n")
    (problem,) = import_problems(path, "gpqa").problems
    task = make_task(FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl"))
    assert problem.answer == "A" and problem.problem_id == "rec1"
    assert task.grade(problem, problem.traces[0]).outcome == 1.0


@pytest.mark.parametrize(("answer", "right"), [(1, "B"), ("C", "C"), ("grey", "D"), ("(b)", "B")])
def test_the_right_option_is_named_by_index_letter_or_text(tmp_path, answer, right):
    path = tmp_path / "mmlu.jsonl"
    path.write_text(json.dumps({"question": "q", "choices": OPTIONS, "answer": answer}) + "\n")
    assert import_problems(path, "mmlu").problems[0].answer == right


def test_an_answer_that_is_none_of_the_choices_is_a_bad_row(tmp_path):
    path = tmp_path / "mmlu.jsonl"
    rows = [{"question": f"q{a}", "choices": OPTIONS, "answer": a} for a in (0, 4, "pink", True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = import_problems(path, "mmlu")
    assert len(found.problems) == 1 and found.kinds == {"no answer": 3}


def test_one_question_with_other_options_is_another_problem(tmp_path):
    rows = [
        {"question": "Which is right?", "choices": choices, "answer": 0}
        for choices in (["a", "b"], ["c", "d"])
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"answer": 1}]))
    found = import_problems(path, "mmlu")
    assert len(found.problems) == 2 and "the answers differ ('A' and 'B')" in found.bad[0]
