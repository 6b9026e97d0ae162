"""Chains of relations and lists of answers, brought to the forms that are compared."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from airls_ray.tasks.maths.comparison import equal
from airls_ray.tasks.maths.polynomials import expand
from airls_ray.tasks.maths.tree import Node, Unreadable, expressions, is_constant, is_expression
from airls_ray.tasks.maths.values import NoValue, numeric

RELATIONS = {
    **{"=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!="},
    **{"\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">="},
    **{"\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\neq": "!=", "\\in": "in", "\\approx": "~", "\\equiv": "="},
    **{"\\simeq": "~", "\\Rightarrow": "", "\\implies": "", "->": "", "\\to": ""},
}
"""What a sign says: `~` is about, nothing is so."""
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_NAMES = "fghFGHPpQqABCD"
"""Letters before another that make a name: f(x), AB."""


def relate(parts: list[Node], signs: list[str]) -> Node:
    """Return a chain of relations as an assignment, a set of solutions, or a relation."""
    if not signs:
        return parts[0]
    if "" in signs or "~" in signs:  # what follows "so" or "about" says the same again
        cut = next(at for at, sign in enumerate(signs) if sign in ("", "~"))
        return (
            relate(parts[: cut + 1], signs[:cut])
            if signs[cut] == "~"
            else relate(parts[cut + 1 :], signs[cut + 1 :])
        )
    if all(sign == "=" for sign in signs):
        return _equation(parts)
    if len(signs) == 1 and signs[0] == "in":
        if parts[0].op != "var" or (is_expression(parts[1]) and parts[1].op != "var"):
            raise Unreadable("an element of what is no set")
        return Node("solution", (parts[0].args[0], parts[1]))
    return _inequality(parts, signs)


def _equation(parts: list[Node]) -> Node:
    name = _name_of(parts[0])
    if name is None and parts[0].op == "tuple" and all(part.op == "var" for part in parts[0].args):
        name = ", ".join(str(part.args[0]) for part in parts[0].args)
    if name is not None:
        return Node("assign", (name, _agreed(parts[1:])))
    if len(parts) > 2 or all(map(is_constant, parts)):
        return _agreed(parts)
    left, right = expressions(parts)
    unknown, value, _ = _solved(left, right, "<")
    if unknown is not left and unknown.op == "var":
        return Node("assign", (unknown.args[0], value))
    return Node("relation", ("=", *parts))


def _agreed(parts: list[Node]) -> Node:
    """Return the value of parts that are said to be equal: the last, or the first where the last rounds it.

    5 = 9 is a contradiction, which is returned as a relation and equals nothing; 440 / 70 = 6 is a slip, and
    says 6.
    """
    numbers = [part for part in parts if is_constant(part)]
    for one, other in pairwise(numbers):
        if not equal(one, other):
            return (
                parts[0] if _rounds(one, other) and not _has_decimal(parts[0]) else _last(parts, one, other)
            )
    return parts[-1]


def _last(parts: list[Node], one: Node, other: Node) -> Node:
    return Node("relation", ("=", one, other)) if one.op == "num" else parts[-1]


def _rounds(one: Node, other: Node) -> bool:
    """Whether the second of two numbers may be the first, rounded."""
    try:
        value, given = numeric(one), numeric(other)
    except NoValue:
        return False
    return _has_decimal(other) and bool(abs(value - given) <= abs(value) / 100)


def _has_decimal(node: Node) -> bool:
    """Whether a decimal is part of an expression."""
    if node.op == "num":
        return bool(node.args[0].denominator > 1)
    return any(_has_decimal(part) for part in node.args if isinstance(part, Node))


def _name_of(node: Node) -> str | None:
    """Return the name that the left side of an equation gives: of a variable, or of f(x)."""
    if node.op == "var":
        return str(node.args[0])
    if node.op == "mul" and all(part.op in ("var", "const") for part in node.args):
        names = [str(part.args[0]) for part in node.args]
        return "".join(names) if len(names) == 2 and names[0] in "fghFGHPpQqABCD" else None
    if (
        node.op == "mul"
        and len(node.args) == 2
        and node.args[0].op == "var"
        and node.args[0].args[0][0] in "fghFGHPpQq"
    ):
        return (
            f"{node.args[0].args[0]}(...)"
            if is_constant(node.args[1]) or node.args[1].op == "tuple"
            else None
        )
    return None


def _inequality(parts: list[Node], signs: list[str]) -> Node:
    infinity = Node("const", ("oo",))
    if len(signs) == 1:
        left, right = expressions(parts)
        sign = signs[0]
        if is_constant(left) and right.op == "var":
            left, right, sign = right, left, _FLIPPED[sign]
        left, right, sign = _solved(left, right, sign)
        if left.op != "var" or not is_constant(right) or sign == "!=":
            return Node("relation", (sign, left, right))
        closed = sign in ("<=", ">=")
        bounds = (
            (right, infinity, closed, False)
            if ">" in sign
            else (Node("neg", (infinity,)), right, False, closed)
        )
        return Node("solution", (left.args[0], Node("interval", bounds)))
    if len(signs) == 2 and parts[1].op == "var" and is_constant(parts[0]) and is_constant(parts[2]):
        if signs[0] in (">", ">=") and signs[1] in (">", ">="):
            parts, signs = parts[::-1], [_FLIPPED[sign] for sign in reversed(signs)]
        if signs[0] in ("<", "<=") and signs[1] in ("<", "<="):
            ends = (parts[0], parts[2], signs[0] == "<=", signs[1] == "<=")
            return Node("solution", (parts[1].args[0], Node("interval", ends)))
    raise Unreadable("a chain of inequalities")


def _solved(left: Node, right: Node, sign: str) -> tuple[Node, Node, str]:
    """Return 2x > 6 as x > 3; what is not linear in one variable as it is."""
    if left.op == "var" and is_constant(right):
        return left, right, sign
    terms = expand(Node("add", (left, Node("neg", (right,))))) or {}
    names = [powers for powers in terms if powers]
    if len(names) != 1 or len(names[0]) != 1 or names[0][0][1] != 1:
        return left, right, sign
    slope, name = terms[names[0]], names[0][0][0]
    bound = Node("num", (-terms.get((), Fraction(0)) / slope, None))
    return Node("var", (name,)), bound, sign if slope > 0 else _FLIPPED[sign]


def _distinct(items: list[Node]) -> list[Node]:
    """Return the items without those that say the same again: 639/40 or 15 39/40."""
    found: list[Node] = []
    for item in items:
        if not any(equal(item, one) for one in found):
            found.append(item)
    return found


def join(items: list[Node], ordered: bool) -> Node:
    """Return the items of an answer as one: `x = 1, x = 2` and `k = 4, 6` are lists of values."""
    if not ordered:
        items = _distinct(items)
    if len(items) == 1:
        return items[0]
    first, *rest = items
    if first.op == "assign" and all(is_expression(one) for one in rest):
        return Node("assign", (first.args[0], Node("list", (first.args[1], *rest))))
    if all(one.op == "assign" for one in items):
        names = [one.args[0] for one in items]
        values = tuple(one.args[1] for one in items)
        if len(set(names)) == 1:
            return Node("assign", (names[0], Node("list", values)))
        return Node("named", tuple(sorted(zip(names, values, strict=True), key=lambda pair: pair[0])))
    if all(one.op == "solution" for one in items) and len({one.args[0] for one in items}) == 1:
        return Node("solution", (items[0].args[0], Node("union", tuple(one.args[1] for one in items))))
    return Node("tuple" if ordered else "list", tuple(items))
