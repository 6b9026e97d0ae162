"""Polynomials multiplied out, so that (x + 1)^2 and x^2 + 2x + 1 have one readable name."""

from __future__ import annotations

from fractions import Fraction
from math import factorial

from airls_ray.tasks.maths.tree import Node
from airls_ray.tasks.maths.values import exact

Terms = dict[tuple[tuple[str, int], ...], Fraction]
"""Coefficients by powers of variables, in the order of their names."""

_MOST_TERMS = 60
_HIGHEST_POWER = 12


def polynomial_name(node: Node) -> str | None:
    """Return a polynomial multiplied out, highest powers first; None for what is none, or too long."""
    terms = expand(node)
    if terms is None:
        return None
    order = sorted(terms, key=lambda powers: (-sum(power for _, power in powers), powers))
    parts = [_term(terms[powers], powers) for powers in order if terms[powers]]
    return " + ".join(parts).replace("+ -", "- ") if parts else "0"


def expand(node: Node) -> Terms | None:
    """Return the coefficients of a polynomial with fractions as coefficients, None where there are none."""
    value = exact(node)
    if value is not None:
        return {(): value}
    if node.op == "var":
        return {((node.args[0], 1),): Fraction(1)}
    if node.op == "pow":
        power = exact(node.args[1])
        if power is None or power.denominator != 1 or not 0 < power <= _HIGHEST_POWER:
            return None
        return _product([expand(node.args[0])] * int(power))
    if node.op == "div":
        below = expand(node.args[1])
        above = expand(node.args[0])
        return None if above is None or not below else _quotient(above, below)
    if node.op == "binom":
        return _binomial(node)
    if node.op not in ("add", "neg", "mul", "pct"):
        return None
    parts = [expand(part) for part in node.args]
    if node.op == "mul":
        return _product(parts)
    total: Terms = {}
    for part in parts:
        if part is None:
            return None
        for powers, factor in part.items():
            total[powers] = total.get(powers, Fraction(0)) + factor
    scale = {"add": Fraction(1), "neg": Fraction(-1), "pct": Fraction(1, 100)}[node.op]
    return {powers: factor * scale for powers, factor in total.items() if factor}


def _binomial(node: Node) -> Terms | None:
    """Return n over k for a small k: n (n - 1) ... (n - k + 1) / k!."""
    count, above = exact(node.args[1]), expand(node.args[0])
    if count is None or above is None or count.denominator != 1 or not 0 < count <= _HIGHEST_POWER:
        return None
    factors: list[Terms | None] = []
    for down in range(int(count)):
        factor = dict(above)
        factor[()] = factor.get((), Fraction(0)) - down
        factors.append(factor)
    product = _product(factors)
    return product and {powers: factor / factorial(int(count)) for powers, factor in product.items()}


def solved_for(name: str, node: Node) -> Node | None:
    """Return what a variable is where a polynomial is nothing; None where that is no polynomial."""
    terms = expand(node) or {}
    slope = terms.pop(((name, 1),), None)
    if slope is None or not terms or any(name == one for powers in terms for one, _ in powers):
        return None
    parts = []
    for powers, factor in terms.items():
        variables = [
            Node("pow", (Node("var", (one,)), Node("num", (Fraction(power), None)))) for one, power in powers
        ]
        parts.append(Node("mul", (Node("num", (-factor / slope, None)), *variables)))
    return Node("add", tuple(parts))


def _product(parts: list[Terms | None]) -> Terms | None:
    total: Terms = {(): Fraction(1)}
    for part in parts:
        if part is None or len(total) * len(part) > _MOST_TERMS * _MOST_TERMS:
            return None
        product: Terms = {}
        for one, factor in total.items():
            for other, by in part.items():
                powers = _together(one, other)
                product[powers] = product.get(powers, Fraction(0)) + factor * by
        total = {powers: factor for powers, factor in product.items() if factor}
        if len(total) > _MOST_TERMS:
            return None
    return total


def _together(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...], sign: int = 1
) -> tuple[tuple[str, int], ...]:
    powers = dict(one)
    for name, power in other:
        powers[name] = powers.get(name, 0) + sign * power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _quotient(above: Terms, below: Terms) -> Terms | None:
    """Return the quotient of two polynomials where nothing is left over, None elsewhere."""
    left, found = dict(above), Terms()
    lead = max(below, key=_order)
    while left:
        if len(found) > _MOST_TERMS:
            return None
        first = max(left, key=_order)
        powers = _together(first, lead, -1)
        if any(power < 0 for _, power in powers):
            return None
        factor = left[first] / below[lead]
        found[powers] = factor
        for one, by in below.items():
            place = _together(powers, one)
            left[place] = left.get(place, Fraction(0)) - factor * by
            if not left[place]:
                del left[place]
    return found


def _order(powers: tuple[tuple[str, int], ...]) -> tuple[int, tuple[tuple[str, int], ...]]:
    return sum(power for _, power in powers), powers


def _term(factor: Fraction, powers: tuple[tuple[str, int], ...]) -> str:
    letters = "*".join(name if power == 1 else f"{name}^{power}" for name, power in powers)
    if not letters:
        return str(factor)
    return letters if factor == 1 else f"-{letters}" if factor == -1 else f"{factor}*{letters}"
