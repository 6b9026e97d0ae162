"""Mathematical answers: found by their plainest sign, cleaned, and compared as numbers or by math-verify."""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from airls_ray.tasks.answers import final_answer
from airls_ray.tasks.base import Grade

_CACHED = 4096
_LONGEST_DIGITS = 60  # beyond: no number that anybody means, and slow to compare
_DECIMALS = 6
_SEPARATOR = re.compile(r"(?<=\d)(?:,\\!\s*|\\,|\{,\})(?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"(?<![\d.,(\[{])\d{1,3}(?:,\d{3})+(?![\d,)\]}])")
_CURRENCY = re.compile(r"(?:\\\$|[€£¥]|(?<![\w$])\$(?=\s*-?[\d.]+\s*\Z))\s*")
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:\\[dt]?frac\s*\{\s*(?P<top>\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}"
    r"|(?P<over>\d+)\s*/\s*(?P<under>\d+)|(?P<whole>\d*\.?\d+|\d+\.))"
)
_UNIT = re.compile(
    r"\s*\\(?:text|mathrm|mbox|textbf)\s*\{\s*(?P<text>[^{}]*)\}(?:\^\{?[23]\}?)?"
    r"|(?P<space>\s*)(?P<words>[A-Za-z]+(?:[ ./-]+[A-Za-z]+)*)\.?(?:\^\{?[23]\}?)?"
)
_SHORT_UNITS = re.compile(
    r"cm|mm|km|kg|mg|ml|mi|ft|in|yd|lbs?|oz|mph|am|pm|hrs?|min|sec|day|cup|egg|box|pen|car|bag|dog|cat|usd",
    re.IGNORECASE,
)
_NO_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozens?|score|half|percent|percentage|and|or|to|by|mod|base|"
    r"sqrt|frac|sinh?|cosh?|tanh?|times|plus|minus|over|pi)\b",
    re.IGNORECASE,
)


def grade_math(answer: str, response: str) -> Grade:
    """Compare the final answer with the right one (run it in a process with its own deadline).

    The final answer is boxed, behind `####` or announced (`The answer is ...`), else what math-verify finds
    last. Thousands separators, currency and units do not count; `50%` equals 50 and 0.5.
    An answer of the problem that cannot be parsed gives the reason `unparsable` and outcome 0.
    """
    gold, given = parse_gold(answer), _parse_response(response)
    name = None if given is None else _name(given)  # also asked for where the right one is not known
    if gold is None:
        return Grade(0.0, name, "unparsable")
    if given is None:
        return Grade(0.0, None)
    return Grade(float(_same(gold, given)), name)


def parse_gold(answer: str) -> Fraction | tuple[Any, ...] | None:
    """Return the right answer as a number, or as what math-verify reads in it; None: nothing."""
    return _parse(answer)


@lru_cache(maxsize=_CACHED)
def _parse(answer: str) -> Fraction | tuple[Any, ...] | None:
    clean = _clean(answer)
    number = _number(clean)
    if number is not None:
        return number
    parse, _ = _math_verify()
    marked = re.search(r"(?<!\\)\$|\\boxed|\\\[|\\\(", clean) is not None
    # Without math delimiters, LaTeX such as (3, \pi/2) is not recognised.
    return _as_number(parse(clean if marked else f"${clean}$", parsing_timeout=None))


def _parse_response(response: str) -> Fraction | tuple[Any, ...] | None:
    final = final_answer(response)
    if final is not None:
        found = _parse(final)
        if found is not None:
            return found
    parse, _ = _math_verify()
    return _as_number(parse(response, parsing_timeout=None))


def _as_number(found: list[Any]) -> Fraction | tuple[Any, ...] | None:
    """Return what math-verify found, a rational number as one of ours; None: nothing."""
    if not found:
        return None
    from sympy import Rational

    if isinstance(found[0], Rational):
        return Fraction(int(found[0].p), int(found[0].q))
    return tuple(found)


def _clean(answer: str) -> str:
    text = _SEPARATOR.sub("", answer.strip().removesuffix("."))
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    text = _CURRENCY.sub("", text)
    return text.replace("\\!", "").strip()


def _number(text: str) -> Fraction | None:
    """Return a plain number (perhaps with a unit behind it) exactly; percent is left to math-verify."""
    text = text.strip("$ ")
    match = _NUMBER.match(text)
    if match is None or match.end() > _LONGEST_DIGITS or not _is_unit(text[match.end() :]):
        return None
    top, bottom = match["top"] or match["over"], match["bottom"] or match["under"]
    if bottom is not None and int(bottom) == 0:
        return None
    value = Fraction(int(top), int(bottom)) if top else Fraction(match["whole"].rstrip("."))
    return -value if match["sign"] == "-" else value


def _is_unit(rest: str) -> bool:
    r"""Whether what stands behind a number does not change it: `cm`, `apples`, `\text{ hours}`, nothing.

    `2x`, `3\pi`, `2 ab`, `5 million` and `3 or 4` are for math-verify.
    """
    if not rest:
        return True
    match = _UNIT.fullmatch(rest)
    if match is None or _NO_UNITS.search(rest):
        return False
    if match["text"] is not None:
        return True
    first = re.split(r"[ ./-]", match["words"])[0]
    return _SHORT_UNITS.fullmatch(first) is not None or (bool(match["space"]) and len(first) >= 4)


def _same(gold: Fraction | tuple[Any, ...], given: Fraction | tuple[Any, ...]) -> bool:
    if isinstance(gold, Fraction) and isinstance(given, Fraction):
        # Decimals are rounded as math-verify does: 0.333333 is 1/3.
        return gold == given or (
            max(gold.denominator, given.denominator) > 1 and round(gold, _DECIMALS) == round(given, _DECIMALS)
        )
    if isinstance(gold, Fraction) and _is_open_equation(given):
        return False
    _, verify = _math_verify()
    return bool(verify(_expressions(gold), _expressions(given), timeout_seconds=None))


def _is_open_equation(parsed: Fraction | tuple[Any, ...]) -> bool:
    """Whether an answer is an equation such as x + 4 = 0, whose right side alone says nothing.

    math-verify compares the right side with a number; that is meant for `x = 5`, `x + y = 5` or `f(2) = 5`.
    """
    from sympy import Add, Eq

    first = None if isinstance(parsed, Fraction) else parsed[0]
    if not isinstance(first, Eq) or not isinstance(first.lhs, Add):
        return False
    return bool(first.lhs.free_symbols) and first.lhs.doit().as_coeff_Add()[0] != 0


def _expressions(parsed: Fraction | tuple[Any, ...]) -> list[Any]:
    if not isinstance(parsed, Fraction):
        return list(parsed)
    from sympy import Float, Rational

    # Exact for fractions, and with the rounding that math-verify gives to decimals.
    exact = Rational(parsed.numerator, parsed.denominator)
    return [exact] if parsed.denominator == 1 else [exact, Float(exact)]


def _name(parsed: Fraction | tuple[Any, ...]) -> str:
    """Return the canonical text of an answer: what votes are counted by."""
    if isinstance(parsed, Fraction):
        return str(parsed)
    text = str(parsed[0])
    number = _number(text)
    return text if number is None else str(number)


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Any, Any]:
    """Import math-verify late (it takes a second) and without its time limits.

    Those use SIGALRM, which works in a main thread only and turns into silent zeros elsewhere.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # warns at each call without a limit
    return parse, verify
