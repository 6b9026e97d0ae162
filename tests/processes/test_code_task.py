"""The task `code`: extraction of programs, published formats, grades and their reasons."""

import base64
import gzip
import json
import os
import pickle
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from airls_ray.config import load_config
from airls_ray.config.schema import CodeTaskConfig
from airls_ray.config.task_choice import to_graders
from airls_ray.data.code_formats import humaneval, leetcode, livecodebench, mbpp
from airls_ray.data.importing import import_problems
from airls_ray.data.problems import problems_to_table, write_problems
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.rollouts import summarise_rollouts
from airls_ray.grading.pool import GradeRequest, GradeResult, GraderPool
from airls_ray.grading.sandbox.box import Sandbox
from airls_ray.grading.table import results_to_table
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_blocks import program_of
from airls_ray.tasks.code_formats import check_details
from airls_ray.tasks.families.code import CodeTask, digest_of
from tests.processes.sandboxes import RIGHT, SMALL, protected_sandbox

CALL = {"form": "call", "entry_point": "add", "tests": [{"arguments": [1, 2], "expected": 3}]}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\ndef twice(x):\n    return 2 * x\n\ndef four(x):\n    """Four times x."""\n',
    "entry_point": "four",
    "canonical_solution": "    return twice(twice(x))\n",
    "test": "def check(candidate):\n    for x in range(3):\n        assert candidate(x) == twice(2 * x)\n",
}
MBPP = {
    "task_id": 5,
    "text": "Write a function.",
    "code": "import math\r\nclass Pair:\r\n  def __init__(self, a): self.a = a\r\ndef f(p): return p.a",
    "test_list": ["assert f(Pair(3)) == 3", "assert f(Pair(4)) == math.floor(4.5)"],
    "test_setup_code": "",
}


@pytest.fixture(scope="module")
def task():
    for _ in protected_sandbox():  # leaves the tests out where nothing protects the machine
        break
    limits = SMALL.as_json()
    made = CodeTask(CodeTaskConfig(train_file="a", test_file="b", sandbox=limits))
    yield made
    made.close()


def fenced(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


# ------------------------------------------------------------------------------------ extraction
@pytest.mark.parametrize(
    ("response", "program"),
    [
        (f"First:\n{fenced('a = 1')}\nbetter:\n{fenced('a = 2')}\ndone", "a = 2\n"),
        (f"{fenced('a = 1')}\n{fenced('1', '')}", "a = 1\n"),
        (f"{fenced('a = 1', 'text')}\n{fenced('b = 2', '')}", "b = 2\n"),
        (fenced("a = 1", "Python3"), "a = 1\n"),
        ("So:\n```python\na = 1\nb =", "a = 1\nb ="),
        (f"{fenced('a = 1')}\nSo it is.\n".replace("\n", "\r\n"), "a = 1\r\n"),
        ("a = 1\n", "a = 1\n"),
        ("", ""),
    ],
)
def test_the_last_python_block_counts_else_the_last_block_else_everything(response, program):
    assert program_of(response, CALL) == program


def test_definitions_that_only_later_blocks_have_come_along_and_their_examples_do_not():
    first = "def add(a, b):\n    return plus(a, b)"
    later = "from operator import add as total\ndef plus(a, b):\n    return total(a, b)\nprint(add(1, 2))"
    unused = "def add_all(xs): return sum(xs)\nfor x in range(3): print(x)"
    found = program_of("\n".join(map(fenced, [first, later, unused])), CALL)
    scope = {}
    exec(found, scope)
    assert scope["add"](1, 2) == 3 and "print" not in found and "add_all" not in found
    assert (
        program_of("\n".join(map(fenced, ["import os\nadd = os", unused])), CALL) == "import os\nadd = os\n"
    )
    future = f"from __future__ import annotations\n{first}"
    compile(program_of("\n".join(map(fenced, [future, later])), CALL), "program", "exec")
    alone = "def add(a, b):\n    return a + b\n"
    assert program_of(f"{fenced(alone.strip())}\n{fenced(later)}", CALL) == alone


def test_a_response_may_go_on_from_the_beginning_of_a_program():
    details = {"entry_point": "four", "complete": HUMANEVAL["prompt"]}
    assert program_of("    return 4 * x\n", details) == HUMANEVAL["prompt"] + "    return 4 * x\n"
    assert program_of("def four(x):\n    return 4 * x\n", details) == "def four(x):\n    return 4 * x\n"
    assert program_of("", details) == ""


def test_layout_and_comments_do_not_change_the_answer():
    assert digest_of("a = 1  # one\n\n\n") == digest_of("a=1")
    assert digest_of("a = 1") != digest_of("a = 2")


# --------------------------------------------------------------------------------------- formats
def test_a_humaneval_row_keeps_helpers_for_the_tests(task):
    problem = humaneval.read("file, row 1", HUMANEVAL)
    assert problem.details["setup"] == "import math\n\ndef twice(x):\n    return 2 * x\n\n"
    assert task.grade(problem, problem.traces[0]).outcome == 1.0
    assert task.grade(problem, "    return 4 * x").outcome == 1.0
    liar = "def twice(x):\n    return 0\ndef four(x):\n    return 0"
    assert task.grade(problem, liar).reason == "wrong_answer"


def test_an_mbpp_row_lets_tests_use_what_the_reference_defines_and_imports(task):
    problem = mbpp.read("file, row 1", MBPP)
    assert (problem.details["entry_point"], problem.details["names"]) == ("f", ["f", "Pair"])
    assert task.grade(problem, fenced(problem.traces[0])).outcome == 1.0
    assert task.grade(problem, fenced(problem.traces[0] + " + 1")).reason == "wrong_answer"


def test_a_leetcode_row_calls_the_method_on_a_new_object(task):
    row = {
        "task_id": "two-sum",
        "query": "Add.",
        "prompt": "from typing import List\n",
        "entry_point": "Solution().add",
        "test": "def check(candidate):\n    assert candidate(a=1, b=2) == 3\n",
    }
    source = "class Solution:\n    def add(self, a: int, b: List[int]): return a + b"
    assert task.grade(leetcode.read("file, row 1", row), source).outcome == 1.0
    calls = {**row, "test": None, "input_output": [{"arguments": [1, 2], "expected": 3}]}
    problem = leetcode.read("file, row 1", calls)
    assert task.grade(problem, source).outcome == 1.0
    assert task.grade(problem, source.replace("+", "-")).reason == "wrong_answer"


def packed_tests(public, private="[]", **fields):
    row = {"question_id": "q", "question_content": "Do.", "public_test_cases": json.dumps(public)}
    return {**row, "private_test_cases": private, **fields}


def test_a_livecodebench_row_with_standard_input(task):
    hidden = json.dumps([{"input": "5 5\n", "output": "10\n", "testtype": "stdin"}])
    packed = base64.b64encode(zlib.compress(pickle.dumps(hidden))).decode()
    row = packed_tests([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}], packed)
    problem = livecodebench.read("file, row 1", row)
    assert [test["input"] for test in problem.details["tests"]] == ["1 2\n", "5 5\n"]
    assert task.grade(problem, "a, b = map(int, input().split())\nprint(a + b)").outcome == 1.0
    assert task.grade(problem, "print(3)").reason == "wrong_answer"


def test_a_livecodebench_row_with_functions(task):
    tests = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
    row = packed_tests(tests, starter_code="class Solution:\n", metadata='{"func_name": "f"}')
    problem = livecodebench.read("file, row 1", row)
    source = "class Solution:\n    def f(self, xs: List[int], y): return sum(xs) + y"
    assert task.grade(problem, source).outcome == 1.0


def test_packed_tests_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    with pytest.raises(DataError, match="file, row 1: field 'private_test_cases'"):
        livecodebench.read("file, row 1", packed_tests([], packed))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("form", "row", "words"),
    [
        ("humaneval", {**HUMANEVAL, "entry_point": ""}, "the tests have no entry point"),
        ("humaneval", {**HUMANEVAL, "entry_point": "five"}, "the prompt does not define 'five'"),
        ("humaneval", {**HUMANEVAL, "test": "def check(c):\n    pass"}, "the tests assert nothing"),
        ("humaneval", {**HUMANEVAL, "test": "def check(c:"}, "a test is no Python"),
        ("humaneval", {**HUMANEVAL, "task_id": None}, "neither 'task_id' nor 'question_id'"),
        ("mbpp", {**MBPP, "test_list": []}, "'test_list' must be a list"),
        ("mbpp", {**MBPP, "code": "def g(): pass"}, "there is no entry point"),
        ("leetcode", {"task_id": "x", "query": "q", "test": "assert 1"}, "the tests have no entry point"),
        ("livecodebench", packed_tests([{"input": "", "output": "", "testtype": "x"}]), "'stdin' or all"),
        (
            "livecodebench",
            packed_tests([{"testtype": "functional"}]),
            "no 'func_name', so the tests have no entry",
        ),
        (
            "livecodebench",
            packed_tests([{"input": "1", "testtype": "stdin", "output": "1"}], "?!"),
            "nor packed",
        ),
    ],
)
def test_a_row_that_cannot_judge_is_one_sentence_with_its_place(tmp_path, form, row, words):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" + json.dumps(row).encode() + b"\n"))
    with pytest.raises(DataError) as caught:
        import_problems(path, form, bad_rows="error")
    assert f"{path}, row 2" in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"form": "x"}, "call, assert or stdin"),
        ({"tests": []}, "at least one test"),
        ({"entry_point": ""}, "no entry point"),
        ({"tests": [{"arguments": []}]}, "test 1 lacks 'expected'"),
        ({"form": "stdin"}, "test 1 lacks 'input' and 'output'"),
    ],
)
def test_details_that_cannot_judge_are_refused(change, words):
    with pytest.raises(DataError, match=words):
        check_details("file, row 3", {**CALL, **change})


def test_problems_of_our_own_form_are_read_and_kept_apart(tmp_path):
    def write(name, *prompts):
        problems = [Problem(prompt, prompt, "-", (RIGHT,), CALL) for prompt in prompts]
        write_problems(problems_to_table(problems), tmp_path / name)
        return tmp_path / name

    train, test = write("train.jsonl", "one", "two"), write("test.parquet", "three")
    task = make_task(CodeTaskConfig(train_file=train, test_file=test))
    assert [problem.details for problem in task.problems("test", 0)] == [CALL]
    both = CodeTask(CodeTaskConfig(train_file=train, test_file=write("both.jsonl", "two")))
    with pytest.raises(DataError, match="occurs in both"):
        next(both.problems("train", 0))


# ----------------------------------------------------------------------------------------- grading
def test_the_share_of_the_tests_can_be_the_outcome(task):
    tests = [{"arguments": [a, 1], "expected": a + 1} for a in range(4)]
    config = CodeTaskConfig(train_file="a", test_file="b", outcome="share", sandbox=SMALL.as_json())
    shares = CodeTask(config)
    problem = Problem("", "p", "-", (), {**CALL, "tests": tests})
    program = "def add(a, b): return a + b if a != 2 else None"
    grade = shares.grade(problem, program)
    assert (grade.outcome, grade.reason) == (0.75, "wrong_answer")
    assert task.grade(problem, program).outcome == 0.0
    assert shares.grade(problem, RIGHT).outcome == 1.0
    shares.close()


def test_a_response_without_a_program_says_so(task):
    grade = task.grade(Problem("", "p", "-", (), CALL), fenced(""))
    assert (grade.outcome, grade.answer, grade.reason) == (0.0, None, "no_program")


def test_the_pool_returns_the_reason_of_every_response(task):
    config = CodeTaskConfig(train_file="a", test_file="b", sandbox=SMALL.as_json())
    sources = [RIGHT, "def add(", "1 / 0", "def add(a, b): return 0", " ", "while True: pass", RIGHT]
    items = [GradeRequest("p", "-", json.dumps(CALL), fenced(source)) for source in sources]
    with GraderPool(to_graders(config), 2, 30.0, largest_chunk=1) as pool:
        results = pool.grade(items)
    assert [result.status for result in results] == [
        *("graded", "syntax_error", "exception", "wrong_answer", "no_program", "timeout", "graded")
    ]
    assert [result.outcome for result in results] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_a_slow_program_holds_up_nobody(task):
    config = CodeTaskConfig(train_file="a", test_file="b", sandbox={**SMALL.as_json(), "wall_seconds": 3.0})
    slow = GradeRequest("p", "-", json.dumps(CALL), "import time\ntime.sleep(60)")
    quick = GradeRequest("p", "-", json.dumps(CALL), RIGHT)
    with GraderPool(to_graders(config), 2, 30.0, largest_chunk=1) as pool:
        results = pool.grade([slow, *[quick] * 20])
    assert [result.status for result in results] == ["timeout", *["graded"] * 20]


def test_every_reason_is_counted_in_the_metrics():
    reasons = ["graded", "wrong_answer", "wrong_answer", "timeout"]
    grades = results_to_table([GradeResult(0.0, None, None, reason) for reason in reasons])
    rollouts = pa.table(
        {
            "group": pa.array([0] * 4),
            "response": pa.array([[1]] * 4),
            "step_ends": pa.array([[1]] * 4),
            "logprobs": pa.array([[0.0]] * 4),
            "finish": pa.array(["stop"] * 4),
        }
    )
    found = summarise_rollouts(rollouts, grades)
    counts = {key: value for key, value in found.items() if key.startswith("grade/")}
    assert counts == {
        "grade/graded_share": 0.25,
        "grade/wrong_answer_share": 0.5,
        "grade/timeout_share": 0.25,
        "grade/no_answer_share": 0.25,
    }


def test_the_deadline_of_the_pool_must_leave_time_for_the_program():
    settings = ["task=code", "task.train_file=a", "task.test_file=b", "model.path=m"]
    with pytest.raises(ConfigError, match=r"verifier\.deadline_seconds is 5, but a program may take"):
        load_config(None, settings)
    assert load_config(None, [*settings, "verifier.deadline_seconds=15"]).task.name == "code"


def test_steps_are_lines_or_blocks():
    for steps, delimiter in (("lines", "\n"), ("blocks", "\n\n")):
        assert (
            CodeTask(CodeTaskConfig(train_file="a", test_file="b", steps=steps)).step_delimiter == delimiter
        )


@pytest.mark.parametrize("end", ["os._exit(0)", "raise ValueError", "while True: pass"])
@pytest.mark.parametrize(
    ("rest", "share"),
    [
        ("".join(f"    found = candidate({x})\n    assert found == {x * x}\n" for x in range(2, 6)), 0.2),
        ("    for x in range(2, 6):\n        found = candidate(x)\n        assert found == x * x\n", 0.0),
    ],
)
def test_an_end_before_the_tests_are_over_adds_nothing_to_the_share(task, end, rest, share):
    limits = {**SMALL.as_json(), "wall_seconds": 2.0}
    shares = CodeTask(CodeTaskConfig(train_file="a", test_file="b", outcome="share", sandbox=limits))
    check = f"def check(candidate):\n    assert candidate(1) == 1\n{rest}"
    details = {"form": "assert", "entry_point": "f", "tests": [f"{check}check(f)\n"]}
    program = f"import os\ndef f(x):\n    if x > 1:\n        {end}\n    return 1"
    assert shares.grade(Problem("", "p", "-", (), details), program).outcome == share
    shares.close()


def test_a_bare_except_of_the_tests_hides_no_end_of_the_program(task):
    test = "for x in range(9):\n    try:\n        assert f(x) == x\n    except:\n        pass"
    details = {"form": "assert", "entry_point": "f", "tests": [test]}
    program = "import os\ndef f(x): return x if x < 1 else os._exit(0)"
    assert task.grade(Problem("", "p", "-", (), details), program).reason == "ended_early"


# ------------------------------------------------------------------------------------ public data
DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere")) / "code"


@pytest.mark.skipif(not DATA.is_dir(), reason="AIRLS_RAY_TEST_DATA has no folder code")
@pytest.mark.parametrize(("form", "name"), [("humaneval", "HumanEval.jsonl.gz"), ("mbpp", "mbpp.jsonl")])
def test_every_twentieth_published_solution_passes(task, form, name):
    problems = import_problems(DATA / name, form, bad_rows="error").problems
    assert len(problems) == {"humaneval": 164, "mbpp": 974}[form]
    for problem in problems[::20]:
        assert task.grade(problem, fenced(problem.traces[0])).reason == "graded", problem.problem_id


def test_a_sandbox_can_be_closed_twice():
    sandbox = Sandbox(SMALL, require=[])
    sandbox.close()
    sandbox.close()
