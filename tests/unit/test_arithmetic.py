"""The arithmetic task: format, splits, grades and step truth against hand-computed chains."""

import json
import re
from itertools import islice

import pytest

from airls_ray.config.schema import ArithmeticTaskConfig
from airls_ray.errors import ConfigError, DataError
from airls_ray.tasks import make_task
from airls_ray.tasks.families.arithmetic import ArithmeticTask


def task(**settings) -> ArithmeticTask:
    made = make_task(ArithmeticTaskConfig(**settings))
    assert isinstance(made, ArithmeticTask)
    return made


def test_a_problem_by_hand():
    problem = task(operations=3).problem("7+3*4-5=")
    assert (problem.answer, problem.traces) == ("5", ("7+3=0;0*4=0;0-5=5;",))


def test_generated_chains_agree_with_python_arithmetic():
    chains = task(operations=4, modulus=97)
    for problem in islice(chains.problems("train", 3), 200):
        numbers, operators = re.findall(r"\d+", problem.prompt), re.findall(r"[-+*]", problem.prompt)
        assert len(operators) == 4
        value = int(numbers[0])
        for operator, number in zip(operators, numbers[1:], strict=True):
            value = eval(f"({value}){operator}{number}") % 97
        assert problem.answer == str(value)


def test_traces_are_graded_right_and_every_step_is_true():
    chains = task()
    for problem in islice(chains.problems("train", 0), 200):
        (trace,) = problem.traces
        steps = re.findall(r"[^;]*;", trace)
        assert chains.grade(problem, trace).outcome == 1.0
        assert chains.step_truth(problem, steps) == [True] * 6


def test_splits_are_disjoint_whatever_the_seeds():
    chains = task(operations=1, test_problems=15)  # a small space: 300 problems
    test = {problem.prompt for problem in chains.problems("test", 9)}
    train = {problem.prompt for seed in range(5) for problem in islice(chains.problems("train", seed), 2000)}
    assert len(train) > 200 and not train & test


def test_the_test_set_is_fixed_distinct_and_of_the_asked_size():
    chains = task(test_problems=120)
    prompts = [problem.prompt for problem in chains.problems("test", 1)]
    assert len(set(prompts)) == len(prompts) == 120
    assert prompts == [problem.prompt for problem in chains.problems("test", 2)]


def test_a_test_set_larger_than_the_space_is_an_error():
    with pytest.raises(ConfigError, match=r"task.test_problems is 500, but .* lower it"):
        list(task(operations=1, modulus=2).problems("test", 0))


def test_streams_start_anywhere_and_differ_by_seed():
    chains = task()
    head = list(islice(chains.problems("train", 5), 2100))
    assert len({problem.prompt for problem in head}) == len(head)
    assert list(islice(chains.problems("train", 5, 1500), 600)) == head[1500:]
    assert list(islice(chains.problems("train", 6), 50)) != head[:50]
    assert list(chains.problems("test", 0, 490)) == list(chains.problems("test", 0))[490:]


def test_ids_follow_the_content():
    problem = task(operations=3).problem("7+3*4-5=")
    assert problem.problem_id == task(operations=3).problem("7+3*4-5=").problem_id
    assert problem.problem_id != task(operations=3).problem("7+3*4-6=").problem_id
    assert problem.problem_id != task(operations=3, modulus=11).problem("7+3*4-5=").problem_id


@pytest.mark.parametrize(
    ("response", "outcome", "answer"),
    [
        ("7+3=0;0*4=0;0-5=5;", 1.0, "5"),
        ("7+3=1;1*4=0;0-5=5;", 1.0, "5"),  # the last stated result counts, not the way
        ("7+3=0;0*4=0;0-5=6;", 0.0, "6"),
        ("7+3=0;0*4=0;0-5=5", 0.0, None),  # not finished
        ("7+3=0;0*4=0;", 0.0, None),
        ("7+3=0;0*4=0;0-5=5;5+0=5;", 0.0, None),
        ("7+3=0;;0-5=5;", 0.0, None),
        ("7+3=0;0*4=0;0-5=05;", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_grades_by_hand(response, outcome, answer):
    chains = task(operations=3)
    grade = chains.grade(chains.problem("7+3*4-5="), response)
    assert (grade.outcome, grade.answer) == (outcome, answer)


@pytest.mark.parametrize(
    ("steps", "truth"),
    [
        (["7+3=0;", "0*4=0;", "0-5=5;"], [True, True, True]),
        (["7+3=1;", "1*4=4;", "4-5=9;"], [False, True, True]),  # right from the STATED operands
        (["7+3=1;", "0*4=0;", "0-5=5;"], [False, False, True]),  # true operand, but not the stated one
        (["8+3=1;", "1*4=4;"], [False, True]),  # wrong start value
        (["7+3=0;", "0+4=4;", "4-5=9;"], [True, False, True]),  # wrong operator
        (["7+3=0;", "0*5=0;", "0-5=5;"], [True, False, True]),  # wrong right operand
        (["7+3=0;", "junk;", "0-5=5;"], [True, False, False]),  # nothing stated to go on from
        (["7+3=0;", "0*4=0;", "0-5=5;", "5-5=0;"], [True, True, True, False]),  # beyond the chain
        (["7+3=0;", "0*4=0"], [True, False]),  # cut off
        (["7+3=" + "1" * 5000 + ";", "1" * 5000 + "*4=0;"], [False, False]),  # more digits than int() takes
        ([""], [False]),
        ([], []),
    ],
)
def test_step_truth_by_hand(steps, truth):
    chains = task(operations=3)
    assert chains.step_truth(chains.problem("7+3*4-5="), steps) == truth


def test_a_training_file_of_another_modulus_is_refused(tmp_path):
    path = tmp_path / "train.jsonl"
    rows = list(islice(task(modulus=5).problems("train", 0), 50))
    path.write_text("".join(json.dumps({"prompt": row.prompt, "answer": row.answer}) + "\n" for row in rows))
    own = next(task(modulus=5, train_file=path).problems("train", 0))
    assert (own.prompt, own.answer) in [(row.prompt, row.answer) for row in rows]
    with pytest.raises(DataError, match="make the file with the same task settings"):
        next(task(modulus=10, train_file=path).problems("train", 0))
