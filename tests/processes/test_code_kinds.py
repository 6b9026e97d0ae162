"""What tests of programs do in public sets, and how responses hold programs: outcomes by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airls_ray.config.schema import CodeTaskConfig
from airls_ray.errors import DataError
from airls_ray.grading.sandbox.text_compare import same_text
from airls_ray.tasks.base import Grade, Problem
from airls_ray.tasks.code_formats import check_details
from airls_ray.tasks.families.code import CodeTask
from tests.processes.code_cases import CASES, CodeCase
from tests.processes.sandboxes import protected_sandbox

DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere"))


@pytest.fixture(scope="module")
def task() -> Iterator[CodeTask]:
    for _ in protected_sandbox():  # leaves the tests out where nothing protects the machine
        break
    made = task_of("all", 0.0)
    yield made
    made.close()


def task_of(outcome: str, tolerance: float) -> CodeTask:
    return CodeTask(
        CodeTaskConfig.model_validate(
            {
                "train_file": "a",
                "test_file": "b",
                "outcome": outcome,
                "tolerance": tolerance,
                "sandbox": {"wall_seconds": 20, "cpu_seconds": 5},
            }
        )
    )


def graded(task: CodeTask, case: CodeCase) -> Grade:
    return task.grade(Problem("", "p", "", (), case.details), case.response)


@pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])
def test_outcomes_of_every_kind(task: CodeTask, case: CodeCase) -> None:
    grade = graded(task, case)
    assert grade.outcome == case.outcome, grade.reason
    assert case.reason in (None, grade.reason)


def test_a_class_of_unittest_tests_something_and_an_empty_one_does_not() -> None:
    details = {"form": "assert", "entry_point": "solve", "tests": ["class T(unittest.TestCase):\n    pass"]}
    with pytest.raises(DataError, match="assert nothing"):
        check_details("row 1", details)
    check_details("row 1", details | {"tests": [details["tests"][0] + "\n    def test_a(self): pass"]})


def test_decimals_are_compared_by_value_as_livecodebench_does() -> None:
    assert same_text("1.0 2\n", "1 2.00", decimals=True)
    assert same_text("  a \n", "a", decimals=True)
    assert not same_text("1.0 2\n", "1 2.01", decimals=True)
    assert not same_text("a b", "a  b", decimals=True)
    assert not same_text("sNaN", "1.50", decimals=True) and not same_text("1.50", "sNaN", decimals=True)
    assert same_text("sNaN\n", "sNaN", decimals=True)
    assert not same_text("1.0", "1")


def test_each_test_has_its_own_time(task: CodeTask) -> None:
    """Both tests sleep for less than a test may take; with one second together the second would not run."""
    tests = [{"input": "1\n", "output": "1\n"}] * 2
    details = {"form": "stdin", "tests": tests, "test_seconds": 1.5}
    program = "import time\ntime.sleep({})\nprint(input())"
    assert graded(task, CodeCase("", details, program.format(0.8), 1.0)).outcome == 1.0
    assert graded(task, CodeCase("", details, program.format(3), 0.0)).reason == "timeout"


@pytest.mark.skipif(not (DATA / "cases").is_dir(), reason="AIRLS_RAY_TEST_DATA has no cases")
def test_cases_that_others_reported() -> None:
    for _ in protected_sandbox():
        break
    differing, tasks = [], {}
    for line in (DATA / "cases/code.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        key = ("all" if row["outcome"] in (0, 1) else "share", row["tolerance"])
        if key not in tasks:
            tasks[key] = task_of(*key)
        grade = graded(tasks[key], CodeCase(row["kind"], row["details"], row["response"], row["outcome"]))
        if grade.outcome != pytest.approx(row["outcome"]):
            differing.append((row["kind"], grade.outcome, grade.reason))
    for task in tasks.values():
        task.close()
    assert differing == []
