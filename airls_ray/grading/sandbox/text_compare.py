"""Whether a program wrote what was expected."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation


def same_text(given: str, expected: str, tolerance: float = 0.0, *, decimals: bool = False) -> bool:
    """Whether two outputs are the same but for white space at the ends of lines and of the text.

    `decimals`, as LiveCodeBench compares: white space around lines does not count, and lines of numbers are
    the same if their values are. With a `tolerance` words that are numbers may differ by it, relative or
    absolute, if one of them is written with a point or an exponent.
    """
    if decimals and _same_decimals(given, expected):
        return True
    ours, theirs = _lines(given), _lines(expected)
    if ours == theirs or not tolerance:
        return ours == theirs
    if len(ours) != len(theirs):
        return False
    pairs = ((one.split(), other.split()) for one, other in zip(ours, theirs, strict=True))
    return all(
        len(one) == len(other) and all(_same_word(a, b, tolerance) for a, b in zip(one, other, strict=True))
        for one, other in pairs
    )


def _same_decimals(given: str, expected: str) -> bool:
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (given, expected))
    return len(ours) == len(theirs) and all(
        one == other or (_decimals(one) is not None and _decimals(one) == _decimals(other))
        for one, other in zip(ours, theirs, strict=True)
    )


def _decimals(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None
    return None if any(number.is_snan() for number in numbers) else numbers  # to compare one raises


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_word(given: str, expected: str, tolerance: float) -> bool:
    if given == expected:
        return True
    if not set(".eE") & set(given + expected):
        return False
    try:
        one, other = float(given), float(expected)
    except ValueError:
        return False
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
