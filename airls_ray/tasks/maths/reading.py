"""From the text of one answer to its tree."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from airls_ray.tasks.maths.decimals import number
from airls_ray.tasks.maths.notation import LONGEST, WORD_CLOSE, WORD_OPEN, plain
from airls_ray.tasks.maths.parser import parse
from airls_ray.tasks.maths.tree import Node
from airls_ray.tasks.maths.words import CONSTANTS, FUNCTIONS, SHORT_WORDS

_CACHED = 4096
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:\\frac\s*\{\s*(?P<top>\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}"
    r"|(?P<over>\d+)\s*/\s*(?P<under>\d+)|(?P<decimal>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3}(?!\w))?))"
)
_UNIT = re.compile(
    rf"\s*(?:{WORD_OPEN}(?P<text>[^{WORD_CLOSE}]*){WORD_CLOSE}"
    r"|(?P<words>[A-Za-z]+(?:[ ./*-]+[A-Za-z]+)*)\.?)\s*(?:\^\s*\{?\s*[23]\s*\}?)?\s*"
)
_SHORT_UNITS = re.compile(
    r"(?:cm|mm|km|kg|mg|ml|mi|yd|lb|hr|min|sec|day|cup|egg|box|pen|car|bag|dog|cat|pt|unit|mile|year)s?|ft|in|oz|mph|"
    r"kmh|kph|am|pm|usd|eur|sq|cu|hz|kw|mol|mb|gb|kb|deg|rad|[ap]\.m",
    re.IGNORECASE,
)
_NO_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozens?|score|half|percent|percentage|and|or|to|by|mod|base|not|"
    r"sqrt|frac|sinh?|cosh?|tanh?|exp|log|ln|times|plus|minus|over|pi|if|when|where|is|for|but|then|maybe|perhaps|"
    r"either|neither|nor|except|infty|infinity)\b",
    re.IGNORECASE,
)
_LAST_UNIT = re.compile(
    rf"(?:(?<=[\d}})\]!])|(?<=pi))(?:\s*{WORD_OPEN}[^{WORD_CLOSE}]*{WORD_CLOSE}|\s*[A-Za-z]+[A-Za-z ./]*)"
    r"\s*(?:\^\s*\{?\s*[23]\s*\}?)?\s*\Z"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")


@lru_cache(maxsize=_CACHED)
def read(text: str) -> Node | None:
    """Return what an answer says, or None where any part of it cannot be read."""
    if len(text) > LONGEST:
        return None
    clean = plain(text)
    plainly = read_number(clean)
    if plainly is not None:
        return plainly
    words = clean.replace(WORD_OPEN, " ").replace(WORD_CLOSE, " ")
    words = " ".join(words.split())
    if _is_words(words):
        return Node("text", (words.lower(),))
    for form in dict.fromkeys((without_unit(clean), clean)):
        found = parse(form)
        if found is not None:
            return found
    return None


def read_number(clean: str) -> Node | None:
    """Return a plain number (perhaps with a unit behind it) without the parser: most answers are one."""
    match = _NUMBER.match(clean)
    if match is None or match.end() > 60 or not is_unit(clean[match.end() :]):
        return None
    if match["decimal"] is not None:
        return _negated(number(match["decimal"]), match["sign"])
    top, bottom = int(match["top"] or match["over"]), int(match["bottom"] or match["under"])
    return _negated(Node("num", (Fraction(top, bottom), None)), match["sign"]) if bottom else None


def _negated(found: Node, sign: str) -> Node:
    return Node("num", (-found.args[0], found.args[1])) if sign == "-" else found


def is_unit(rest: str) -> bool:
    r"""Whether what stands behind a number does not change it: `cm`, `apples`, `\text{ hours}`, nothing.

    `2x`, `3\pi`, `2 ab`, `5 million` and `3 or 4` do.
    """
    if not rest.strip():
        return True
    match = _UNIT.fullmatch(rest)
    if match is None or _NO_UNITS.search(rest.replace(WORD_OPEN, " ").replace(WORD_CLOSE, " ")):
        return False
    if match["text"] is not None:
        return True
    first = re.split(r"[ /*-]|\.(?!m\b)", match["words"])[0]
    spaced = rest[:1].isspace()
    if _SHORT_UNITS.fullmatch(first) is not None:
        return True
    return spaced and (len(first) >= 4 or (len(first) > 2 and first.isupper()))


def without_unit(clean: str) -> str:
    """Return a formula without a unit at its end."""
    match = _LAST_UNIT.search(clean)
    if match is None or not is_unit(match.group()):
        return clean
    return clean[: match.start()]


def _is_words(words: str) -> bool:
    if not _WORDS.fullmatch(words):
        return False
    first = words.split(" ")[0].lower()
    if " " in words:
        return any(
            len(word) > 2 and word not in FUNCTIONS and word not in ("and",) for word in words.split(" ")
        )
    if first in FUNCTIONS or first in CONSTANTS:
        return False
    return (
        len(words) > 3
        or first in SHORT_WORDS
        or (len(words) > 1 and words[0].isupper() and words[1:].islower())
    )
