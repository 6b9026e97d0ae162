"""Countdown: the solver against brute force over expressions, rules, splits and the public file's format."""

import json
import random
import re
from collections import Counter
from itertools import islice, permutations
from pathlib import Path

import pytest

from airls_ray.config.schema import ArithmeticTaskConfig, CountdownTaskConfig
from airls_ray.data.detours import with_detours
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import ConfigError, DataError
from airls_ray.tasks.countdown_solver import LARGEST_RESULT, combine, reachable, solutions, solvable
from airls_ray.tasks.families.arithmetic import ArithmeticTask
from airls_ray.tasks.families.countdown import CountdownTask, read_prompt

PUBLIC = [
    ("15,44,79,50", "44-15=29,79-29=50"),
    ("65,34,56,25", "65-34=31,56-31=25"),
    ("1,2,12,25", "2*12=24,1+24=25"),
    ("99,15,19,65", "99-15=84,84-19=65"),
]
"""The first rows of the public file."""


def task(**settings) -> CountdownTask:
    return CountdownTask(CountdownTaskConfig(**settings))


def brute_force(numbers: tuple[int, ...]) -> set[int]:
    """Every value of every expression: all orders of the numbers, all brackets, all operations."""

    def values(row: tuple[int, ...]) -> set[int]:
        if len(row) == 1:
            return set(row)
        found = set()
        for cut in range(1, len(row)):
            for a in values(row[:cut]):
                for b in values(row[cut:]):
                    found |= {a + b, a * b} | ({a - b} if a >= b else set())
                    found |= {a // b} if b and a % b == 0 else set()
        return {value for value in found if value <= LARGEST_RESULT}

    return set().union(*(values(order) for order in permutations(numbers)))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_reachable_values_equal_brute_force(size):
    rng = random.Random(size)
    for largest in (6, 99):
        for _ in range(12):
            pool = tuple(sorted(rng.choices(range(largest + 1), k=size)))
            truth = brute_force(pool)
            assert reachable(pool) == truth, pool
            assert {target for target in range(1, 120) if solvable(pool, target)} == {
                target for target in truth if 1 <= target < 120
            }, pool


def test_five_numbers_equal_brute_force():
    pool = (2, 3, 7, 10, 96)
    assert reachable(pool) == brute_force(pool)


def test_solutions_are_all_right_distinct_and_exist_exactly_when_solvable():
    rng = random.Random(1)
    for _ in range(60):
        numbers, target = tuple(rng.choices(range(1, 30), k=4)), rng.randint(1, 60)
        found = list(solutions(numbers, target))
        assert bool(found) == solvable(tuple(sorted(numbers)), target)
        for steps in found:
            pool = Counter(numbers)
            for step in steps:
                left, result = step.split("=")
                operator = next(sign for sign in "+-*/" if sign in left)
                operands = [int(text) for text in left.split(operator)]
                pool.subtract(operands)
                assert min(pool.values()) >= 0 and eval(left) == int(result)
                pool[int(result)] += 1
            assert +pool == Counter([target])


@pytest.mark.parametrize(("given", "solution"), PUBLIC)
def test_the_first_trace_is_that_of_the_public_file(given, solution):
    countdown = task()
    problem = countdown.problem(read_prompt(given + ":"))
    assert (problem.prompt, problem.traces) == (given + ":", (solution,))
    assert countdown.grade(problem, solution).outcome == 1.0


def test_results_above_the_limit_do_not_count():
    assert combine(200, 200) == [400, 0, 1]
    assert not solvable((99, 99, 99, 99, 99), 99**5)


def test_generated_problems_are_solved_by_every_trace():
    countdown = task(numbers=4, traces_per_problem=4)
    problems = list(islice(countdown.problems("train", 2), 150))
    assert max(len(problem.traces) for problem in problems) == 4
    for problem in problems:
        assert all(countdown.grade(problem, trace).outcome == 1.0 for trace in problem.traces)
        sets = [frozenset(countdown.grade(problem, trace).answer.split(",")) for trace in problem.traces]
        assert len(set(sets)) == len(sets)  # not the same steps in another order


def test_generated_targets_are_uniform_and_numbers_in_range():
    problems = [read_prompt(problem.prompt) for problem in islice(task().problems("train", 0), 3000)]
    counts = Counter(target for _, target in problems)
    assert set(counts) == set(range(10, 100)) and max(counts.values()) < 3 * min(counts.values())
    numbers = [number for given, _ in problems for number in given]
    assert min(numbers) == 1 and max(numbers) == 99


def test_splits_are_disjoint_up_to_the_order_of_the_numbers():
    countdown = task(numbers=2, max_number=30, test_problems=20)

    def keys(problems):
        return {(tuple(sorted(read_prompt(p.prompt)[0])), p.answer) for p in problems}

    test = keys(countdown.problems("test", 0))
    train = keys(p for seed in range(3) for p in islice(countdown.problems("train", seed), 1500))
    assert len(test) >= 10 and len(train) > 200 and not train & test


def test_streams_start_anywhere():
    countdown = task()
    head = list(islice(countdown.problems("train", 5), 1200))
    assert list(islice(countdown.problems("train", 5, 1100), 100)) == head[1100:]


def public_file(folder: Path, rows=PUBLIC) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps({"input": a, "output": b}) + "\n" for a, b in rows))
    return path


def test_a_test_file_gives_its_rows_in_order(tmp_path):
    countdown = task(test_file=public_file(tmp_path), test_problems=3)
    problems = list(countdown.problems("test", 7))
    assert [(p.prompt, p.traces[0]) for p in problems] == [(a + ":", b) for a, b in PUBLIC[:3]]


def test_puzzles_and_targets_of_a_test_file_stay_out_of_training(tmp_path):
    path = public_file(tmp_path, [("2,3,1,5", "2+3=5,5*1=5"), ("1,1,3,1", "1*1=1,3/1=3")][:1])
    settings = {"max_number": 6, "test_file": path}
    held = {p.answer for p in islice(task(**settings).problems("train", 0), 2000)}
    assert held == {"1", "2", "3", "4", "6"}
    pairs = [
        (tuple(sorted(read_prompt(p.prompt)[0])), p.answer)
        for p in islice(task(**settings, hold_out_targets=False).problems("train", 0), 4000)
    ]
    assert ((1, 2, 3), "5") not in pairs and "5" in {answer for _, answer in pairs}


def test_a_test_file_with_every_target_says_what_to_do(tmp_path):
    rows = [("1,1,1,1", "1*1=1,1*1=1"), ("1,1,2,2", "1*1=1,1*2=2"), ("1,1,3,3", "1*1=1,1*3=3")]
    with pytest.raises(ConfigError, match=r"set task.hold_out_targets to false"):
        next(task(max_number=3, test_file=public_file(tmp_path, rows)).problems("train", 0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"input": "1,2,3"', "row 2: not a JSON object"),
        ('{"input": "15,44,79,50"}', "row 2: field 'output' is missing"),
        ('{"input": "15;44", "output": ""}', "row 2: field 'input' must be numbers"),
        ('{"input": "15,44,50", "output": "44-15=29"}', "has 2 numbers, but task.numbers is 3"),
        (
            '{"input": "15,44,79,51", "output": "44-15=29,79-29=50"}',
            "row 2: field 'output' is not a solution",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    path = public_file(tmp_path, PUBLIC[:1])
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(DataError, match=message):
        next(task(test_file=path).problems("test", 0))


def test_a_missing_test_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        next(task(test_file=tmp_path / "nowhere.jsonl").problems("test", 0))


@pytest.mark.parametrize(
    ("response", "outcome", "answer"),
    [
        ("44-15=29,79-29=50", 1.0, "44-15=29,79-29=50"),
        ("44-15=29,79-29=51", 0.0, "44-15=29,79-29=51"),
        ("44-15=28,79-29=50", 0.0, "44-15=28,79-29=50"),
        ("79+15=94,94-44=50", 1.0, "15+79=94,94-44=50"),  # operands of + and * are sorted
        ("44-15=29", 0.0, "44-15=29"),  # a number is left
        ("44-15=29,79-29=50,", 0.0, None),
        ("15-44=-29,79-29=50", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_grades_by_hand(response, outcome, answer):
    countdown = task()
    grade = countdown.grade(countdown.problem(((15, 44, 79), 50)), response)
    assert (grade.outcome, grade.answer) == (outcome, answer)


@pytest.mark.parametrize(
    ("steps", "truth"),
    [
        (["44-15=29,", "79-29=50"], [True, True]),
        (["44+15=59,", "79-59=20"], [False, False]),  # right arithmetic, but 50 is out of reach
        (["44-15=28,", "79-29=50"], [False, False]),  # 29 was never made
        (["44-15=29,", "79-28=51"], [True, False]),  # 28 is not available
        (["44-15=29,", "79+29=108"], [True, False]),
        (["44-44=0,", "79-29=50"], [False, False]),  # 44 is there once
        (["44-15=29"], [False]),  # ends although numbers are left
        (["44-15=29,", "79-29=50,"], [True, False]),  # goes on although none is left
        (["44-15=29,", "79-29=50,", "50+0=50"], [True, False, False]),
        (["junk,", "79-29=50"], [False, False]),
        (["44-15=" + "1" * 5000 + ",", "79-29=50"], [False, False]),  # more digits than int() takes
    ],
)
def test_step_truth_by_hand(steps, truth):
    countdown = task()
    assert countdown.step_truth(countdown.problem(((15, 44, 79), 50)), steps) == truth


def test_division_must_be_exact():
    countdown = task(numbers=2)
    assert countdown.grade(countdown.problem(((3, 30), 10)), "30/3=10").outcome == 1.0
    problem = countdown.problem(((3, 30), 10))
    assert countdown.grade(problem, "31/3=10").outcome == 0.0
    assert countdown.step_truth(countdown.problem(((4, 44), 11)), ["45/4=11"]) == [False]


# -------------------------------------------------------------------------- several counts of numbers
def test_training_problems_have_each_count_and_test_problems_one():
    mixed = task(numbers=4, train_numbers=[3, 4])
    counts = Counter(len(read_prompt(p.prompt)[0]) for p in islice(mixed.problems("train", 0), 400))
    assert set(counts) == {3, 4}
    assert 140 < counts[3] < 260
    assert {len(read_prompt(p.prompt)[0]) for p in islice(mixed.problems("test", 0), 50)} == {4}


def test_one_count_gives_the_stream_that_it_gave_before():
    plain, listed = task(numbers=3), task(numbers=3, train_numbers=[3])
    assert list(islice(plain.problems("train", 5), 50)) == list(islice(listed.problems("train", 5), 50))


def test_more_files_may_be_held_out_whatever_their_count(tmp_path):
    puzzles = [read_prompt(p.prompt) for p in islice(task(max_number=9).problems("train", 0), 3)]
    rows = [
        (",".join(map(str, (*numbers, target))), ",".join(next(solutions(numbers, target))))
        for numbers, target in puzzles
    ]
    path = public_file(tmp_path, rows)
    mixed = task(numbers=4, max_number=9, train_numbers=[3], hold_out_files=[path], hold_out_targets=False)
    kept_out = {(tuple(sorted(n)), t) for n, t in puzzles}
    seen = [read_prompt(p.prompt) for p in islice(mixed.problems("train", 0), 300)]
    assert not kept_out & {(tuple(sorted(n)), t) for n, t in seen}


# ------------------------------------------------------------------------------------- detours
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def walk(prompt: str, response: str) -> int | None:
    """The last number if every step is right and each number is used once, else None."""
    numbers, _ = read_prompt(prompt)
    pool = Counter(numbers)
    for step in response.split(","):
        left, operator, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", step).groups()
        a, b, c = int(left), int(right), int(result)
        if operator == "/" and a % b:
            return None
        if OPERATIONS[operator](a, b) != c or c < 0:
            return None
        pool.subtract([a, b])
        if min(pool.values()) < 0:
            return None
        pool[c] += 1
    rest = list(pool.elements())
    return rest[0] if len(rest) == 1 else None


@pytest.mark.parametrize("size", [3, 4])
def test_a_detour_has_right_steps_alone_and_seldom_reaches_the_target(size):
    countdown = task(numbers=size)
    reached = 0
    for problem in islice(countdown.problems("train", 0), 300):
        last = walk(problem.prompt, countdown.detour(problem, random.Random(problem.problem_id)))
        assert last is not None
        reached += last == int(problem.answer)
    assert 0 < reached < 100


def test_a_detour_makes_no_large_numbers():
    countdown = task(numbers=4, max_number=30)
    for problem in islice(countdown.problems("train", 0), 200):
        first = problem.traces[0].split(",")
        steps = countdown.detour(problem, random.Random(problem.problem_id)).split(",")
        kept = next((i for i, step in enumerate(steps) if step != first[i]), 3)
        for step in steps[kept:]:
            left, _, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", step).groups()
            assert int(result) <= max(60, int(left), int(right))


def test_detours_begin_with_any_number_of_steps_of_the_solution():
    problem = next(task(numbers=4).problems("train", 0))
    first = problem.traces[0].split(",")
    kept = Counter()
    for seed in range(300):
        steps = task(numbers=4).detour(problem, random.Random(seed)).split(",")
        kept[next((i for i, step in enumerate(steps) if step != first[i]), 3)] += 1
    assert all(kept[number] > 30 for number in range(3))


def test_the_share_of_detours_is_drawn_by_seed_and_problem():
    countdown = task()
    problems = ProblemStream(countdown, "train", 0).take(400)
    mixed = with_detours(problems, countdown, 0.25, 7)
    changed = [
        a != b for a, b in zip(problems["traces"].to_pylist(), mixed["traces"].to_pylist(), strict=True)
    ]
    assert 60 < sum(changed) < 140
    backwards = problems.take(list(range(399, -1, -1)))
    assert with_detours(backwards, countdown, 0.25, 7).to_pylist() == mixed.to_pylist()[::-1]
    assert with_detours(problems, countdown, 0.25, 8)["traces"] != mixed["traces"]
    assert mixed.drop_columns("traces").equals(problems.drop_columns("traces"))


def test_without_detours_nothing_changes():
    problems = ProblemStream(task(), "train", 0).take(5)
    assert with_detours(problems, task(), 0.0, 7) is problems


def test_a_task_without_detours_is_named():
    arithmetic = ArithmeticTask(ArithmeticTaskConfig())
    problems = ProblemStream(arithmetic, "train", 0).take(5)
    with pytest.raises(ConfigError, match=r"sft.detour_share is 0.3, but the task arithmetic cannot"):
        with_detours(problems, arithmetic, 0.3, 7)
