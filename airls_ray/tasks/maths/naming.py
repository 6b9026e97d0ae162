"""One name for every answer, by which votes are counted: equal answers have the same."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from airls_ray.tasks.maths.comparison import bare
from airls_ray.tasks.maths.polynomials import polynomial_name, solved_for
from airls_ray.tasks.maths.reading import read
from airls_ray.tasks.maths.tree import Node, is_expression, variables
from airls_ray.tasks.maths.values import NoValue, exact, near, numeric, samples

_CALCULATION = re.compile(r"\d\s*[-+*/]\s*\(?\d.*=")
_PLACES = 6
_LARGEST_DENOMINATOR = 99
"""Fractions up to it keep their form: no two of them share six decimals, and few other numbers do."""
_LONGEST = 60


def name(node: Node) -> str:
    """Return the canonical text of an answer.

    Values that agree to six decimals (and six digits) share a name unless both are short fractions; a name is
    given to a value (`x = 5` is 5, 50 % is 1/2), to a set, or to the difference of the sides of an equation.
    """
    node = bare(node)
    if is_expression(node):
        try:
            return _value_name(node)
        except NoValue:
            return f"undefined {_digest(repr(node))}"
    if node.op == "text":
        return str(node.args[0])
    if node.op == "named":
        return f"({', '.join(name(value) for _, value in node.args)})"
    if node.op in ("list", "union"):
        return "{" + ", ".join(sorted(map(name, node.args))) + "}"
    if node.op == "interval":
        low, high, closed_below, closed_above = node.args
        return f"{'[' if closed_below else '('}{name(low)}, {name(high)}{']' if closed_above else ')'}"
    if node.op == "relation":
        return _relation_name(node)
    if node.op == "ratio":
        return ":".join(map(name, node.args))
    return "(" + ", ".join(map(name, node.args)) + ")"


def vote_name(text: str | None) -> str | None:
    """Return the name of an answer that stands in a file, for votes; what is no mathematics keeps its text.

    So does a calculation such as 3+4=7, which is more than its result.
    """
    if text is None or ("=" in text and _CALCULATION.search(text)):
        return text
    node = read(text)
    return text.strip() or None if node is None or node.op == "text" else name(node)


def _value_name(node: Node) -> str:
    value = exact(node)
    if value is not None:
        return fraction_name(value)
    if not variables(node):
        return _complex_name(numeric(node))
    return polynomial_name(node) or f"f({', '.join(sorted(variables(node)))}) {_digest_of_samples(node)}"


def fraction_name(value: Fraction) -> str:
    """Return the name of a fraction: itself where it is short, else the value to six places."""
    if value.denominator == 1:
        return _integer_name(value.numerator)
    if value.denominator <= _LARGEST_DENOMINATOR or 10 ** (_PLACES - 1) % value.denominator == 0:
        return f"{_integer_name(value.numerator)}/{value.denominator}"
    size = _places(value)
    rounded = Fraction(round(value * Fraction(10) ** size)) / Fraction(10) ** size
    simple = rounded.limit_denominator(_LARGEST_DENOMINATOR)
    if simple and abs(simple - rounded) <= Fraction(1, 2) / Fraction(10) ** size:
        return str(simple)
    with localcontext() as context:
        context.prec = 400
        return f"{(Decimal(rounded.numerator) / Decimal(rounded.denominator)).normalize():g}"


def _integer_name(value: int) -> str:
    if value.bit_length() < 3 * _LONGEST:
        return str(value)
    return f"{'-' if value < 0 else ''}2^{value.bit_length() - 1} {_digest(hex(value))}"


def _places(value: Fraction) -> int:
    """Decimals that show six of them, and six digits of a small number."""
    if not value or not _short(value):
        return _PLACES
    size = abs(value)
    magnitude = len(str(size.numerator)) - len(str(size.denominator))
    if size < Fraction(10) ** magnitude:
        magnitude -= 1
    return max(_PLACES, _PLACES - 1 - magnitude)


def _short(value: Fraction) -> bool:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) < 10_000


def _complex_name(value: Any) -> str:
    real, imaginary = value.real, value.imag
    if near(value, real):
        return _real_name(real)
    below = _real_name(imaginary)
    factor = "" if below == "1" else "-" if below == "-1" else below
    if near(value - real, value):
        return f"{factor}i"
    return f"{_real_name(real)} + {factor}i".replace("+ -", "- ")


def _real_name(value: Any) -> str:
    if abs(value) == float("inf"):
        return "oo" if value > 0 else "-oo"
    sign, mantissa, exponent, bits = value._mpf_
    if abs(exponent + bits) > 10_000:
        return f"2^{exponent + bits} {_digest(str(mantissa >> max(bits - 60, 0)))}"
    return fraction_name((-1 if sign else 1) * Fraction(int(mantissa)) * Fraction(2) ** exponent)


def _relation_name(node: Node) -> str:
    sign, left, right = node.args
    difference = Node("add", (left, Node("neg", (right,))))
    if not variables(difference):
        return f"{name(left)} {sign} {name(right)}"
    line = solved_for("y", difference) if sign == "=" and len(variables(difference)) > 1 else None
    if line is not None:  # y = 2x + 1 has the name of 2x + 1
        return _value_name(line)
    if sign[0] == ">":
        sign, difference = "<" + sign[1:], Node("neg", (difference,))
    digest = _digest_of_samples(difference, scaled=True, signed=sign != "=")
    return f"{', '.join(sorted(variables(difference)))}: {sign} 0 {digest}"


def _digest_of_samples(node: Node, *, scaled: bool = False, signed: bool = False) -> str:
    """Return a digest of an expression's values; `scaled`: the same for all its multiples."""
    found = [value for (value,) in samples(node)]
    if scaled and found:
        size = next((value for value in found if value != 0), 1)
        found = [value / (abs(size) if signed else size) for value in found]
    return _digest(" ".join(_complex_name(value) for value in found))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
