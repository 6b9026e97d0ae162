r"""What a read answer is: a tree of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple


class Node(NamedTuple):
    r"""A part of an answer: `op` says what it is, `args` what it is of.

    Expressions: num (Fraction, half a unit of its last decimal or None), var, const, add, mul, div, pow, neg,
    call (name, argument), root (degree, argument), fact, binom, pct. Answers besides: text, list (order does
    not count), tuple, interval (ends, whether each is closed), union, ratio, base (number, its base), assign
    (name, value), named (several assigns), solution (variable, set), relation (sign, left, right).
    """

    op: str
    args: tuple[Any, ...] = ()


class Unreadable(ValueError):
    """The text is none of the forms that are known here."""


_CONTAINERS = frozenset(
    ("text", "list", "tuple", "interval", "union", "ratio", "base", "assign", "named", "solution", "relation")
)


def is_expression(node: Node) -> bool:
    """Whether `node` has a value, as a list, a set or an equation has not."""
    return node.op not in _CONTAINERS


def expressions(parts: Sequence[Node]) -> tuple[Node, ...]:
    """Return `parts` as they are.

    Raises:
        Unreadable: one has no value.
    """
    for part in parts:
        if not is_expression(part):
            raise Unreadable(f"a {part.op} in an expression")
    return tuple(parts)


def depth(node: Node) -> int:
    """Return how deep a tree is, without descending into it by calls."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        one, level = waiting.pop()
        deepest = max(deepest, level)
        waiting += [(part, level + 1) for part in one.args if isinstance(part, Node)]
    return deepest


@lru_cache(maxsize=4096)
def variables(node: Node) -> frozenset[str]:
    """Return the names of all variables of an expression."""
    if node.op == "var":
        return frozenset(node.args)
    return frozenset().union(*(variables(part) for part in node.args if isinstance(part, Node)))


def is_constant(node: Node) -> bool:
    """Whether `node` has a value without any variable."""
    return is_expression(node) and not variables(node)
