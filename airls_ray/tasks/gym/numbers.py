"""Replay of reasoning-gym's countdown: calculations on the numbers that are left, then the expression."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Any

Entry = Mapping[str, Any]

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.floordiv),
}
_CALCULATION = re.compile(r"\s*(-?\d+)\s*([-+*/])\s*(-?\d+)\s*=\s*(-?\d+)\s*")
_BY_SIGN = {sign: compute for sign, compute in _OPERATORS.values()}
_LARGEST = 10**6
"""Of what a calculation may give, so that the search ends."""


class Countdown:
    """A calculation takes two of the numbers left; the target must still be reachable with all of them.

    Results are integers, below 0, too, of at most a million in absolute value. The line behind the last
    calculation, when one number is left, is the expression: it is right if it has the value and the numbers
    that were asked for.
    """

    def __init__(self, entry: Entry) -> None:
        """Begin with all numbers."""
        given = entry["metadata"]
        self._numbers, self._target = tuple(given["numbers"]), given["target"]
        self._left = Counter(self._numbers)
        self._ended = False

    def take(self, step: str) -> bool:
        """Calculate."""
        if self._ended:
            return False
        match = _CALCULATION.fullmatch(step)
        if match is None:
            self._ended = True
            return self._is_expression(step)
        left, sign, right, stated = int(match[1]), match[2], int(match[3]), int(match[4])
        if Counter((left, right)) - self._left or compute(left, sign, right) != stated:
            return False
        self._left = self._left - Counter((left, right)) + Counter((stated,))
        return reaches(tuple(sorted(self._left.elements())), self._target)

    def _is_expression(self, text: str) -> bool:
        found = calculations_of(text)
        if found is None:
            return False
        used, _, value = found
        return value == self._target and Counter(used) == Counter(self._numbers)


def countdown_trace(entry: Entry) -> str | None:
    """Return the recorded expression as calculations, one a line, and the expression; None where it has none
    (a single number, or a quotient that is no integer)."""
    expression = str(entry["metadata"]["expression"])
    found = calculations_of(expression)
    if found is None or not found[1]:
        return None
    return "\n".join([*found[1], expression.replace(" ", "")])


def compute(left: int, sign: str, right: int) -> int | None:
    """Return `left sign right`, or None where that is no integer or larger than is looked at."""
    if sign == "/" and (right == 0 or left % right):
        return None
    value = _BY_SIGN[sign](left, right)
    return value if abs(value) <= _LARGEST else None


def calculations_of(expression: str) -> tuple[list[int], list[str], int] | None:
    """Return the numbers of an expression, its calculations from the inside out and its value.

    None where it is no expression of integers with + - * /, or a part of it has no integer as value.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    numbers: list[int] = []
    steps: list[str] = []

    def value_of(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
            return node.value
        if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
            raise ValueError("no calculation of integers")
        sign = _OPERATORS[type(node.op)][0]
        left, right = value_of(node.left), value_of(node.right)
        value = compute(left, sign, right)
        if value is None:
            raise ValueError("no integer")
        steps.append(f"{left}{sign}{right}={value}")
        return value

    try:
        value = value_of(tree)
    except (ValueError, RecursionError):
        return None
    return numbers, steps, value


def reaches(pool: tuple[int, ...], target: int) -> bool:
    """Whether all numbers of `pool` (sorted) together give `target`."""
    return target in values_of(pool)


@lru_cache(maxsize=4096)
def values_of(pool: tuple[int, ...]) -> frozenset[int]:
    """Return everything that all numbers of `pool` (sorted) together give, by the rules of `compute`."""
    if len(pool) == 1:
        return frozenset(pool)
    found: set[int] = set()
    places = range(len(pool))
    for size in range(1, len(pool) // 2 + 1):
        for some in combinations(places, size):
            others = tuple(pool[place] for place in places if place not in some)
            for left in values_of(tuple(pool[place] for place in some)):
                for right in values_of(others):
                    for a, b in ((left, right), (right, left)):
                        for sign in _BY_SIGN:
                            value = compute(a, sign, b)
                            if value is not None:
                                found.add(value)
    return frozenset(found)
