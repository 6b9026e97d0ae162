"""math-verify, for what our own parser does not read: sums, integrals, free text."""

from __future__ import annotations

import logging
import re
from collections import Counter
from functools import lru_cache
from typing import Any

Found = tuple[Any, ...]
"""Expressions of sympy or texts, as math-verify gives them; empty: nothing was found."""

_CACHED = 4096
_NUMBER = re.compile(r"\d+")


@lru_cache(maxsize=_CACHED)
def find(answer: str, *, strictly: bool = False) -> Found:
    """Return what math-verify reads in one answer; `strictly`: nothing where it drops a number."""
    # Without marks around it, LaTeX such as (3, \\pi/2) is not recognised.
    marked = re.search(r"(?<!\\)\$|\\boxed|\\\[|\\\(", answer) is not None
    found = find_anywhere(answer if marked else f"${answer}$")
    return found if not strictly or keeps_numbers(answer, found) else ()


def find_anywhere(text: str) -> Found:
    """Return what math-verify finds in a text."""
    parse, _ = _math_verify()
    return tuple(parse(text, parsing_timeout=None))


def keeps_numbers(text: str, found: Found) -> bool:
    """Whether every number of a text is in what was read: math-verify drops what it does not understand."""
    return bool(found) and not Counter(_NUMBER.findall(text)) - Counter(_NUMBER.findall(str(found[0])))


def agree(gold: Found, given: Found) -> bool:
    """Whether math-verify holds two answers equal."""
    _, verify = _math_verify()
    return bool(gold and given and verify(list(gold), list(given), timeout_seconds=None))


def worked_out(found: Found) -> str | None:
    """Return what a sum, an integral or a limit without variables comes to, None for anything else."""
    from sympy import Expr, Integral, Limit, Product, Sum

    if not found or not isinstance(found[0], Expr) or found[0].free_symbols:
        return None
    return as_text(found[0].doit()) if found[0].has(Integral, Limit, Product, Sum) else None


def as_text(found: Any) -> str:
    """Return an expression in the notation that our parser reads."""
    from sympy import Eq

    if isinstance(found, Eq):
        return f"{as_text(found.lhs)} = {as_text(found.rhs)}"
    return re.sub(r"\bI\b", "i", re.sub(r"\bE\b", "e", str(found)))


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Any, Any]:
    """Import math-verify late (it takes a second) and without its time limits.

    Those use SIGALRM, which works in a main thread only and turns into silent zeros elsewhere.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # warns at each call without a limit
    return parse, verify
