# ruff: noqa: RUF001 - signs of Unicode are what is tested
"""Any text as an answer: no traceback, no hang, and verdicts that depend on meaning alone."""

from __future__ import annotations

import time
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airls_ray.tasks.answers import announced, boxed, without_thoughts
from airls_ray.tasks.code_blocks import program_of
from airls_ray.tasks.families.code import digest_of
from airls_ray.tasks.math_grader import grade_math, read_response
from airls_ray.tasks.maths.comparison import equal
from airls_ray.tasks.maths.naming import name, vote_name
from airls_ray.tasks.maths.reading import read
from tests.fuzz.budget import FEW

LONGEST_SECONDS = 2.0
"""Of the processor, for one answer by our own parser; the grader's deadline is several times as much."""

_PIECES = (
    r"\frac \sqrt \boxed{ } { ( ) [ ] ^ _ , ; : = < > + - * / ** ! % | \pi e i x y 0 1 2 3.5 12 10 1e3 "
    r"1e-9 \le \in \cup \infty \pm \ldots ... \text{ \left( \right) \sin \log_ \binom "
    r"\begin{pmatrix} & \\ \end{pmatrix} \{ \} $ \$ \% and or cm 1,000 0.333333 \overline{3} ½ √ π − "
    r"× ∞ ² <think> </think> <answer> "
    r"#### **2** The answer is not Answer: ``` 9999999999 ^{9^{9}} \times \cdot \approx"
)
PIECES = st.sampled_from(_PIECES.split(" "))
FORMULAS = st.lists(PIECES, max_size=10).map(" ".join) | st.lists(PIECES, max_size=8).map("".join)
TEXTS = FORMULAS | st.text(max_size=40)
EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "2", "3", "7", "1/2", "0.25", "\\pi", "x", "y", "\\sqrt{2}", "10^{-9}"]),
    lambda part: (
        st.tuples(part, st.sampled_from("+-*"), part).map(lambda one: f"({one[0]}){one[1]}({one[2]})")
        | part.map(lambda one: f"\\frac{{{one}}}{{3}}")
        | part.map(lambda one: f"({one})^2")
    ),
    max_leaves=4,
)
FRACTIONS = st.fractions(min_value=-1000, max_value=1000, max_denominator=500)


@FEW
@given(TEXTS)
@example("9^{9^{9^{9}}}")
@example("1e999999999")
@example("((((((" * 200)
@example("2^{" * 300)
@example("10^{10^{10}}!")
@example("\\binom{10^9}{10^8}")
@example("x" * 1999)
@example("1" * 1900)
@example("0." + "3" * 1900)
@example("1,000" * 300)
@example("(x+y+1)^{12}(x-y)^{12}")
@example("\\exp(\\exp(\\exp(\\exp(9))))")
@example("\ud800")
def test_any_text_is_read_or_not_within_the_deadline(text: str) -> None:
    start = time.process_time()
    node = read(text)
    if node is not None:
        assert name(node) == name(node)
        assert equal(node, node)
    vote_name(text)
    assert time.process_time() - start < LONGEST_SECONDS


@FEW
@given(TEXTS)
@example("answer " * 3000)
@example("**" * 3000)
@example("<think>" * 2000)
@example("\\boxed{" * 2000)
@example("```python\n" * 1000)
@example("$1" * 2000)
def test_any_response_has_an_answer_or_none_within_the_deadline(text: str) -> None:
    start = time.process_time()
    said = without_thoughts(text)
    boxed(said)
    announced(said)
    digest_of(program_of(text, {"entry_point": "f", "complete": "def f():\n"}))
    assert time.process_time() - start < LONGEST_SECONDS


@settings(FEW, max_examples=60)
@given(FORMULAS, FORMULAS)
def test_equality_is_symmetric(first: str, second: str) -> None:
    one, other = read(first), read(second)
    if one is None or other is None:
        return
    assert equal(one, other) == equal(other, one)


@settings(FEW, max_examples=100)
@given(EXPRESSIONS)
def test_an_expression_equals_itself_written_otherwise(text: str) -> None:
    one = read(text)
    others = [read(f"{text} + 0"), read(f"\\left( {text} \\right)"), read(f"1*({text})"), read(f"${text}$")]
    if one is None:
        return
    for other in others:
        assert other is not None
        assert equal(one, other)
        assert name(one) == name(other)


@settings(FEW, max_examples=100)
@given(FRACTIONS, FRACTIONS)
def test_fractions_are_equal_exactly_if_they_are(first: Fraction, second: Fraction) -> None:
    forms = [
        str(first),
        f"\\frac{{{first.numerator}}}{{{first.denominator}}}",
        f"x = {first}",
        f"\\text{{{first}}}",
    ]
    nodes = [read(form) for form in forms]
    other = read(str(second))
    for node in nodes:
        assert node is not None and other is not None
        assert equal(node, other) == (first == second)
        assert name(node) == name(nodes[0] or node)


@settings(FEW, max_examples=60)
@given(FRACTIONS, st.sampled_from(["\\boxed{%s}", "The answer is %s.", "#### %s", "<think>0</think>**%s**"]))
def test_the_same_response_has_the_same_verdict_wherever_the_answer_stands(
    value: Fraction, form: str
) -> None:
    for gold in (value, value + 1):
        grade = grade_math(str(gold), form % value)
        assert grade.outcome == float(gold == value)
        assert grade == grade_math(str(gold), form % value)
    found, alone = read_response(form % value), read(str(value))
    assert found is not None and alone is not None and found.name == name(alone)
