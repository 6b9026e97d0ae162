"""Whether a program wrote what was expected."""

from __future__ import annotations

import math


def same_text(given: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether two outputs are the same but for white space at the ends of lines and of the text.

    With a `tolerance` words that are numbers may differ by it, relative or absolute, if one of them is
    written with a point or an exponent.
    """
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
