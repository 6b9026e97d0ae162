"""Mathematical answers of every kind: verdicts by hand, one name for equal answers, symmetry, speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from airls_ray.tasks.answers import after_hash, announced, boxed, tagged, without_thoughts
from airls_ray.tasks.math_grader import grade_math
from airls_ray.tasks.maths.comparison import equal
from airls_ray.tasks.maths.naming import name, vote_name
from airls_ray.tasks.maths.reading import read
from tests.unit.maths_cases import BOXED, RESPONSES

DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere"))


def wrong(cases: list[tuple[str, str, bool]]) -> list[tuple[str, str, bool]]:
    return [case for case in cases if (grade_math(case[0], case[1]).outcome == 1.0) != case[2]]


@pytest.mark.parametrize("kind", list(BOXED))
def test_what_a_box_holds_is_judged_by_its_meaning(kind: str) -> None:
    assert wrong([(gold, f"So it is \\boxed{{{text}}}.", right) for gold, text, right in BOXED[kind]]) == []


@pytest.mark.parametrize("kind", list(RESPONSES))
def test_the_answer_of_a_response_is_found_and_judged(kind: str) -> None:
    assert wrong(RESPONSES[kind]) == []


EQUAL = [
    ("2\\sqrt3", "\\sqrt{12}", "2*sqrt(3)", "√12"),
    ("50\\%", "0.5", "\\frac12", "1/2", "½", "0.50"),
    ("x=5", "5", "5.0", "\\text{5}", "$5$", "5 \\text{ cm}", "\\{5\\}"),
    ("x^2+2x+1", "(x+1)^2", "1 + 2*x + x**2", "\\frac{(x+1)^3}{x+1}"),
    ("1/3", "0.\\overline{3}", "0.333333", "0.3333333333", "\\frac{2}{6}"),
    ("\\pi/2", "0.5\\pi", "1.570796", "\\frac{\\pi}{2}"),
    ("1,2", "2, 1", "\\{1, 2\\}", "1 \\text{ and } 2", "x=1 or x=2"),
    ("(-\\infty,3)", "x < 3", "3 > x", "2x < 6"),
    ("3x-2y=-5", "-3x+2y=5", "6x - 4y + 10 = 0"),
    ("\\tan^2 y + 1", "\\sec^2(y)"),
    ("2^{100}", "4^{50}", "1267650600228229401496703205376"),
    ("Monday", "\\text{Monday}", "monday"),
    ("1+2i", "2i + 1", "1.0 + 2.0i"),
]


@pytest.mark.parametrize("texts", EQUAL)
def test_equal_answers_have_one_name_and_are_equal_both_ways(texts: tuple[str, ...]) -> None:
    nodes = [read(text) for text in texts]
    assert None not in nodes
    assert {name(node) for node in nodes if node} == {name(nodes[0])} if nodes[0] else False
    assert all(
        equal(one, other) and equal(other, one) for one, other in combinations(nodes, 2) if one and other
    )


def test_answers_that_differ_have_names_that_differ() -> None:
    names = [name(node) for texts in EQUAL if (node := read(texts[0]))]
    assert len(set(names)) == len(names)
    small = [
        name(node) for text in ("1/2118760", "1/2598960", "1.6e-19", "2e-19", "0") if (node := read(text))
    ]
    assert len(set(small)) == 5


def test_a_name_is_its_own_name() -> None:
    names = [name(node) for texts in EQUAL for text in texts if (node := read(text))]
    assert [vote_name(one) for one in names if "f(" not in one and ":" not in one] == [
        one for one in names if "f(" not in one and ":" not in one
    ]


def test_answers_in_files_that_are_no_mathematics_keep_their_text() -> None:
    for text in ("3+4=7,7*2=14", "9f3c01ab77e2", "New York", "C"):
        assert vote_name(text) == text
    assert vote_name(None) is None


def test_thoughts_are_cut_off_closed_unclosed_or_begun_in_the_prompt() -> None:
    assert without_thoughts("<think>5</think> 7").strip() == "7"
    assert without_thoughts("a <think>5").strip() == "a"
    assert without_thoughts("5</think>7") == "7"
    assert without_thoughts("<think>1</think>2<think>3</think>4").split() == ["2", "4"]


def test_signs_of_an_answer() -> None:
    assert tagged("<answer> 7 </answer>") == "7"
    assert tagged("<answer>7") == "7"
    assert boxed(r"\boxed{1} or \boxed{2}") == "1, 2"
    assert boxed(r"\boxed{1}, wait: \boxed{2}") == "2"
    assert after_hash("#### Step 2: 5") is None
    assert after_hash("#### Final Answer\n5") is None
    assert announced("## Answer\n\n**5**") == "5"
    assert announced("The answer is not 5.") is None


def test_two_numbers_are_never_equal_by_absolute_rounding() -> None:
    for gold, given in (("1/2118760", "1/2598960"), ("1e-9", "2e-9"), ("0", "1e-7"), ("1e-30", "0")):
        assert grade_math(gold, f"\\boxed{{{given}}}").outcome == 0.0


def test_plain_numbers_need_no_library() -> None:
    code = (
        "import sys; from airls_ray.tasks.math_grader import grade_math;"
        "assert grade_math('1,234', 'The answer is $1234.').outcome == 1;"
        "sys.exit(any(one in sys.modules for one in ('sympy', 'mpmath', 'math_verify')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not (DATA / "cases").is_dir(), reason="AIRLS_RAY_TEST_DATA has no cases")
def test_cases_that_others_reported() -> None:
    rows = [json.loads(line) for line in (DATA / "cases/maths.jsonl").open(encoding="utf-8")]
    assert wrong([(row["gold"], row["response"], row["right"]) for row in rows]) == []
