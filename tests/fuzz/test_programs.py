"""Any value between a program and its tests, any frame, any block of code: no traceback of ours."""

from __future__ import annotations

import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from airls_ray.grading.sandbox import values
from airls_ray.grading.sandbox.judge import equal
from airls_ray.grading.sandbox.text_compare import same_text
from airls_ray.tasks.code_blocks import program_of
from airls_ray.tasks.families.code import digest_of
from tests.fuzz.budget import FEW

HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.binary(max_size=6)
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
)
PLAIN = st.recursive(
    HASHABLE,
    lambda part: (
        st.lists(part, max_size=3)
        | st.tuples(part, part)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, part, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *(
            "int",
            "bytes",
            "complex",
            "range",
            "decimal",
            "type",
            "fraction",
            "deque",
            "date",
            "datetime",
            "time",
        ),
        *(
            "timedelta",
            "array",
            "tuple",
            "set",
            "dict",
            "handle",
            "error_class",
            "callback",
            "fields",
            "other",
        ),
    ]
)
FRAMES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=2),
    max_leaves=8,
)
LINES = st.sampled_from(
    [
        *(
            "```",
            "```python",
            "~~~",
            "   ```py",
            "````",
            "def f(x):",
            "    return x",
            "print(f(1))",
            "text",
            "",
        ),
        *("> ```python", "<think>", "</think>", "class f:", "f = 1", "f(", "import g", "    ~~~~"),
    ]
)


@FEW
@given(PLAIN)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    back = values.decode(values.encode(value))
    assert type(back) is type(value)
    assert back == value
    assert equal(back, value, 0.0)


@FEW
@given(FRAMES)
@example({"deque": []})  # raised an IndexError once
def test_a_frame_is_a_value_or_refused(frame: Any) -> None:
    try:
        values.decode(frame, lambda handle, fields: (handle, repr(fields)))
    except values.BadFrame:
        return


@FEW
@given(st.lists(LINES, max_size=12), st.sampled_from(["call", "stdin"]))
def test_any_response_has_a_program_that_is_the_same_each_time(lines: list[str], form: str) -> None:
    response = "\n".join(lines)
    details = {"form": form, "entry_point": "f", "complete": "def f(x):\n"}
    program = program_of(response, details)
    assert program == program_of(response, details)
    assert digest_of(program) == digest_of(program)


@FEW
@given(st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_outputs_are_compared_both_ways_alike(one: str, other: str, decimals: bool) -> None:
    assert same_text(one, one, decimals=decimals)
    for tolerance in (0.0, 1e-6):
        forth = same_text(one, other, tolerance, decimals=decimals)
        assert forth == same_text(other, one, tolerance, decimals=decimals)


def test_values_that_tests_use_most_travel_by_hand() -> None:
    for value in (datetime.date(2024, 2, 29), Decimal("1.10"), Fraction(1, 3), {"a": (1, [2])}, 1 << 200):
        assert values.decode(values.encode(value)) == value
