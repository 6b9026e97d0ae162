"""Decimals: exact, and whether one may stand for a rounded value."""

from __future__ import annotations

from fractions import Fraction

from airls_ray.tasks.maths.tree import Node, Unreadable

_PLACES = 6
"""As many decimals as math-verify rounds to; here as many significant digits, too."""
_LARGEST_POWER = 5000


def number(text: str) -> Node:
    """Return the value of `12`, `0.5` or `1.2e3`, exactly, with half a unit of its last place.

    The half is None for a number that stands for nothing but itself. A decimal may stand for a rounded value
    where it has six digits behind the point and six significant ones: 0.333333 for 1/3, but not 3.33.

    Raises:
        Unreadable: its exponent is beyond all bounds.
    """
    digits, _, exponent = text.lower().partition("e")
    power = int(exponent or 0)
    if abs(power) > _LARGEST_POWER:
        raise Unreadable("a number beyond all bounds")
    whole, _, behind = digits.partition(".")
    unit = Fraction(10) ** (power - len(behind))
    value = Fraction(int(whole + behind)) * unit
    rounded = len(behind) - power >= _PLACES and len((whole + behind).lstrip("0")) >= _PLACES and behind
    return Node("num", (value, unit / 2 if rounded else None))
