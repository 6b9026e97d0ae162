"""What expressions are worth: exactly where they are fractions, else to 60 digits."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, isqrt
from typing import Any

from airls_ray.tasks.maths.tree import Node, variables

DIGITS = 60
_LARGEST_BITS = 200_000
"""Of an exact number; beyond, only its leading digits are known."""
_LARGEST_FACTORIAL = 2000
_LARGEST_LOG = 1e7
"""Of a power: what is larger has no value here."""
_POINTS = ("0.7390851332", "1.9021605831", "-0.5671432904", "2.6854520010", "-1.2824271291", "0.3036630029")
"""Values of the first variable at which expressions are compared; the others get multiples of their own."""
_SHIFT = "0.6180339887"


class NoValue(ArithmeticError):
    """An expression has no value, or one beyond all bounds."""


@lru_cache(maxsize=4096)
def exact(node: Node) -> Fraction | None:
    """Return the value of an expression as a fraction, None where it is none or is not seen to be one.

    Raises:
        NoValue: something is divided by zero.
    """
    if node.op == "num":
        value: Fraction = node.args[0]
        return value
    if node.op in ("var", "const", "call"):
        return _exact_call(node)
    parts = [exact(part) for part in node.args]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return _combined(node.op, known)


def _exact_call(node: Node) -> Fraction | None:
    if node.op == "call" and node.args[0] in ("abs", "floor", "ceil"):
        inner = exact(node.args[1])
        if inner is not None:
            return {"abs": abs(inner), "floor": Fraction(inner // 1), "ceil": Fraction(-(-inner // 1))}[
                node.args[0]
            ]
    return None


def _combined(op: str, parts: list[Fraction]) -> Fraction | None:
    if op == "add":
        return sum(parts, Fraction(0))
    if op == "mul":
        value = Fraction(1)
        for part in parts:
            value *= part
            if _bits(value) > _LARGEST_BITS:
                return None
        return value
    if op == "neg":
        return -parts[0]
    if op == "pct":
        return parts[0] / 100
    if op == "div":
        if parts[1] == 0:
            raise NoValue("a division by zero")
        return parts[0] / parts[1]
    if op == "pow":
        return _power(*parts)
    if op == "root":
        return _root(*parts)
    if op == "fact":
        return Fraction(factorial(int(parts[0]))) if _small_integers(parts) else None
    if op == "binom":
        return Fraction(comb(int(parts[0]), int(parts[1]))) if _small_integers(parts) else None
    return None


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _small_integers(parts: list[Fraction]) -> bool:
    return all(part.denominator == 1 and 0 <= part <= _LARGEST_FACTORIAL for part in parts)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        root = _root(Fraction(exponent.denominator), base)
        return None if root is None or base < 0 else _power(root, Fraction(exponent.numerator))
    if base == 0 and exponent <= 0:
        raise NoValue("a power of zero")
    if abs(exponent) * _bits(base) > _LARGEST_BITS:
        return None
    return base ** int(exponent)


def _root(degree: Fraction, value: Fraction) -> Fraction | None:
    """Return a root that is a fraction; of a negative number the real one, where the degree is odd."""
    if degree.denominator != 1 or not 2 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        return None
    parts = [_whole_root(int(degree), abs(part)) for part in (value.numerator, value.denominator)]
    if parts[0] is None or parts[1] is None:
        return None
    return Fraction(parts[0], parts[1]) * (-1 if value < 0 else 1)


def _whole_root(degree: int, value: int) -> int | None:
    if degree == 2:
        root = isqrt(value)
        return root if root * root == value else None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < value else (low, middle)
    return low if low**degree == value else None


@lru_cache(maxsize=1)
def _library() -> Any:
    """Import mpmath late: plain numbers do without it."""
    import mpmath

    return mpmath.mp.clone()


def numeric(node: Node, values: Mapping[str, Any] | None = None) -> Any:
    """Return the value of an expression as a number of mpmath with DIGITS digits, perhaps complex.

    Raises:
        NoValue: it has none, or one beyond all bounds.
    """
    mp = _library()
    with mp.workdps(DIGITS + 20):
        try:
            found = _numeric(mp, node, values or {})
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, KeyError) as error:
            raise NoValue(str(error)) from error
        except mp.NoConvergence as error:
            raise NoValue(str(error)) from error
        if mp.isnan(found):
            raise NoValue("not a number")
        return found


def _numeric(mp: Any, node: Node, values: Mapping[str, Any]) -> Any:
    op, args = node
    if op == "num":
        return mp.mpf(args[0].numerator) / args[0].denominator
    if op == "var":
        return values[args[0]]
    if op == "const":
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.j, "oo": mp.inf}[args[0]]
    if op == "call":
        return _called(mp, args[0], _numeric(mp, args[1], values))
    parts = [_numeric(mp, part, values) for part in args]
    if op == "add":
        return mp.fsum(parts)
    if op == "mul":
        return mp.fprod(parts)
    if op == "neg":
        return -parts[0]
    if op == "pct":
        return parts[0] / 100
    if op == "div":
        return parts[0] / parts[1]
    if op == "pow":
        return _raised(mp, *parts)
    if op == "root":
        real_root = mp.im(parts[1]) == 0 and mp.re(parts[1]) < 0 and parts[0] % 2 == 1
        return -mp.root(-parts[1], int(parts[0])) if real_root else _raised(mp, parts[1], 1 / parts[0])
    if op == "fact":
        return mp.factorial(_bounded(mp, parts[0], 1e6))
    if op == "binom":
        return mp.binomial(_bounded(mp, parts[0], 1e6), _bounded(mp, parts[1], 1e6))
    raise NoValue(f"{op} has no value")


def _raised(mp: Any, base: Any, exponent: Any) -> Any:
    if base != 0 and abs(mp.log(abs(base))) * abs(exponent) > _LARGEST_LOG:
        raise NoValue("a power beyond all bounds")
    return mp.power(base, exponent)


def _bounded(mp: Any, value: Any, bound: float) -> Any:
    if abs(value) > bound:
        raise NoValue("beyond all bounds")
    return value


def _called(mp: Any, name: str, value: Any) -> Any:
    _bounded(mp, value, _LARGEST_LOG if name in ("exp", "sinh", "cosh", "tanh") else mp.mpf(10) ** 300)
    if name == "abs":
        return mp.fabs(value)
    known = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return getattr(mp, known.get(name, name))(value)


def near(one: Any, other: Any) -> bool:
    """Whether two numbers of mpmath agree to all digits that are known."""
    mp = _library()
    if mp.isinf(one) or mp.isinf(other):
        return bool(one == other)
    with mp.workdps(DIGITS):
        size = max(abs(one), abs(other))
        # Sums that cancel to nothing leave an error of the last digit of what they were made of.
        return bool(abs(one - other) <= size * mp.mpf(10) ** (10 - DIGITS) + mp.mpf(10) ** (-DIGITS - 5))


def samples(*nodes: Node) -> list[list[Any]]:
    """Return the values of expressions at points where all have one: a list of as many for each point."""
    mp = _library()
    names = sorted(frozenset().union(*(variables(node) for node in nodes)))
    found = []
    for point in _POINTS if names else _POINTS[:1]:
        start = mp.mpf(point)
        values = {name: start + place * mp.mpf(_SHIFT) * start for place, name in enumerate(names)}
        try:
            found.append([numeric(node, values) for node in nodes])
        except NoValue:
            continue
    return found
