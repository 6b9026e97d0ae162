"""When two answers are the same: exactly, never by rounding but where a long decimal stands for a value."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from airls_ray.tasks.maths.tree import Node, is_constant, is_expression, variables
from airls_ray.tasks.maths.values import NoValue, exact, near, numeric, samples

_FEWEST_POINTS = 2


def equal(one: Node, other: Node) -> bool:
    """Whether two answers mean the same; the order of the two does not matter.

    `x = 5` is 5, `x > 3` the interval above 3, a percentage p is p and p / 100. The items of a list may stand
    in any order; those of a tuple may not.
    """
    if one == other:
        return True
    try:
        return _equal(one, other)
    except NoValue:
        return False


def _equal(one: Node, other: Node) -> bool:
    if one.op == other.op == "assign" and one.args[0] != other.args[0]:
        if not variables(one.args[1]) or not variables(other.args[1]):
            return False
        return _equal_relations(_as_relation(one), _as_relation(other))  # x = 2y and y = x / 2
    if one.op == other.op == "solution" and one.args[0] != other.args[0]:
        return False
    if one.op == other.op == "base" and one.args[1] != other.args[1]:
        return False
    if {one.op, other.op} == {"assign", "relation"}:
        one, other = _as_relation(one), _as_relation(other)
    first, second = bare(one), bare(other)
    if is_expression(first) and is_expression(second):
        return _equal_values(first, second)
    if first.op == second.op == "relation":
        return _equal_relations(first, second)
    if "relation" in (first.op, second.op):
        return _equal_right_side(first, second) or _equal_right_side(second, first)
    if first.op == second.op == "named":
        return len(first.args) == len(second.args) and all(
            name == same and equal(value, given)
            for (name, value), (same, given) in zip(first.args, second.args, strict=True)
        )
    if {first.op, second.op} == {"named", "tuple"}:
        named, pair = (first, second) if first.op == "named" else (second, first)
        return _in_order([value for _, value in named.args], pair.args)
    if first.op == second.op and first.op in ("list", "union"):
        return _same_items(first.args, second.args)
    if {first.op, second.op} <= {"list", "tuple"} and len(first.args) > 1:
        return _in_order(first.args, second.args)
    if first.op == second.op == "interval":
        return first.args[2:] == second.args[2:] and _in_order(first.args[:2], second.args[:2])
    if {first.op, second.op} == {"interval", "tuple"}:
        interval, pair = (first, second) if first.op == "interval" else (second, first)
        return interval.args[2:] == (False, False) and _in_order(interval.args[:2], pair.args)
    if first.op == second.op == "ratio":
        return _in_order(first.args, second.args)
    return False


def _as_relation(node: Node) -> Node:
    """Return y = 2x as an equation, to compare it with 2x - y = 0."""
    if node.op != "assign" or not is_expression(node.args[1]) or not variables(node.args[1]):
        return node
    return Node("relation", ("=", Node("var", (node.args[0],)), node.args[1]))


def bare(node: Node) -> Node:
    """Return what a name is given to, a number without its base, and a list of one as its item."""
    while True:
        if node.op in ("assign", "solution"):
            node = node.args[1]
        elif node.op == "base" or (node.op in ("list", "union") and len(node.args) == 1):
            node = node.args[0]
        else:
            return node


def _in_order(first: Sequence[Node], second: Sequence[Node]) -> bool:
    return len(first) == len(second) and all(map(equal, first, second))


def _same_items(first: Sequence[Node], second: Sequence[Node]) -> bool:
    """Whether every item has its like on the other side, none being used twice."""
    left = list(second)
    if len(first) != len(left):
        return False
    for item in first:
        match = next((place for place, one in enumerate(left) if equal(item, one)), None)
        if match is None:
            return False
        del left[match]
    return True


def _equal_values(one: Node, other: Node) -> bool:
    if one.op == "pct" and other.op != "pct":
        return _same_value(one, other) or _same_value(one.args[0], other)
    if other.op == "pct" and one.op != "pct":
        return _same_value(one, other) or _same_value(one, other.args[0])
    return _same_value(one, other)


def _same_value(one: Node, other: Node) -> bool:
    left, right = exact(one), exact(other)
    half = max(
        (node.args[1] or Fraction(0) for node in (one, other) if node.op == "num"), default=Fraction(0)
    )
    if left is not None and right is not None:
        return left == right or abs(left - right) <= half
    if variables(one) != variables(other) and not _cancels(one, other):
        return False
    if half and is_constant(one) and is_constant(other):
        value = left if left is not None else right
        assert value is not None  # a decimal is exact
        return _rounds_to(one if left is None else other, value, half)
    pairs = samples(one, other)
    enough = _FEWEST_POINTS if variables(one) or variables(other) else 1
    return len(pairs) >= enough and all(near(first, second) for first, second in pairs)


def _cancels(one: Node, other: Node) -> bool:
    """Whether a variable that only one side has may fall out of it: x - x + 2."""
    return len(variables(one) | variables(other)) <= 1


def _rounds_to(node: Node, value: Fraction, half: Fraction) -> bool:
    found = numeric(node)
    with_margin = half * Fraction(1_000_001, 1_000_000)
    difference = abs(found - found.__class__(value.numerator) / value.denominator)
    return bool(difference <= found.__class__(with_margin.numerator) / with_margin.denominator)


def _equal_relations(one: Node, other: Node) -> bool:
    """Whether two relations differ by a factor alone; in an inequality it must be above zero."""
    sign, same = one.args[0], other.args[0]
    differences = [Node("add", (node.args[1], Node("neg", (node.args[2],)))) for node in (one, other)]
    if sign[0] in "<>" and same[0] in "<>" and sign[0] != same[0]:
        differences[1] = Node("neg", (differences[1],))
        same = {"<": ">", ">": "<"}[same[0]] + same[1:]
    if sign != same or not all(map(variables, differences)):
        return False
    pairs = [pair for pair in samples(*differences) if pair[0] != 0 and pair[1] != 0]
    if len(pairs) <= _FEWEST_POINTS:
        return False
    ratios = [first / second for first, second in pairs]
    positive = sign in ("=", "!=") or _is_positive(ratios[0])
    return positive and all(near(ratio, ratios[0]) for ratio in ratios)


def _is_positive(value: Any) -> bool:
    return value.imag == 0 and value.real > 0


def _equal_right_side(relation: Node, value: Node) -> bool:
    """Whether an equation such as x + y = 5 gives a value: by a right side that is not nothing.

    x + 4 = 0 does not: there the left side has a part of the value.
    """
    if relation.op != "relation" or relation.args[0] != "=" or not is_expression(value):
        return False
    _, left, right = relation.args
    if not variables(left) or not is_constant(right) or exact(right) == 0:
        return False
    terms = left.args if left.op == "add" else (left,)
    return not any(is_constant(term) for term in terms) and _equal_values(right, value)
