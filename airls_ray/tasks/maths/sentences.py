# ruff: noqa: RUF001 - the signs of Unicode are what is read here
"""The value that a sentence ends up with: `therefore 15`, `the number of apples, which is 15`."""

from __future__ import annotations

import re

from airls_ray.tasks.maths.notation import unbold
from airls_ray.tasks.maths.reading import read
from airls_ray.tasks.maths.tree import Node

_LONGEST = 300
_FILLER = re.compile(
    r"\A[\s,:=*_>-]*(?:\b(?:therefore|thus|hence|so|then|now|approximately|approx\.?|about|around|roughly|exactly|"
    r"precisely|simply|just|only|indeed|clearly|equals?|equal to|given by|found to be|that|is|as follows|"
    r"a total of|nearly|almost|going to be|will be|would be|be|obviously|of course|the value|"
    r"the number)\b[\s,:=]*)+",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r".*(?:\b(?:is|are|was|were|be|equals?|get|gets|got|obtain|have|has|gives?|paid|makes?|total of|"
    r"equal to|remain)\b"
    r"|[=≈]|\\approx|:)\s*(?!\s*not\b)(?P<tail>.+)",
    re.IGNORECASE | re.DOTALL,
)
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$(?![\d,.]+\s)(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*(.+?)\*\*|`(.+?)`",
    re.DOTALL,
)
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?%?(?![\w,]*\d)")
_CLAUSE = re.compile(
    r"[,;]?\s+(?:(?P<reason>because|since)|as|for|not|due)\b.*|\s*\([^()]*[a-z]{2}[^()]*\)\s*\Z", re.DOTALL
)
_HEDGE = re.compile(r"\b(?:or|not|maybe|perhaps|either)\b", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_RULE = re.compile(r"[-*_=\s]+")


def read_sentence(text: str, *, marked: bool = False, announced: bool = True) -> Node | None:
    """Return the value that an announcement gives, None where it is not plain which.

    `marked`: the text is all of an answer, so words around a value must announce it. `announced`: the value
    stands at the front, and what gives a reason for it can go.
    """
    if len(text) > _LONGEST:
        return None
    found = _value(text)
    if found is not None:
        return found
    without = _FILLER.sub("", text)
    if without != text and (found := _value(without)) is not None:
        return found
    clause = _CLAUSE.search(without)
    if clause is not None and announced and not marked and not _HEDGE.search(clause[0].removeprefix(", not")):
        found = read_sentence(without[: clause.start()])
        if found is not None and (found.op != "text" or clause["reason"]):
            return found
    tail = _TAIL.fullmatch(without)
    if (
        tail is not None
        and (found := _value(_FILLER.sub("", tail["tail"]))) is not None
        and found.op != "text"
    ):
        return found
    if marked or _HEDGE.search(text):
        return None
    return _last_formula(without) or _only_number(without)


def _value(text: str) -> Node | None:
    return read(unbold(text.strip().rstrip(".!?").strip()))


def _last_formula(text: str) -> Node | None:
    formulas = [next(part for part in match if part) for match in _FORMULA.findall(text)]
    return _value(formulas[-1]) if formulas else None


def _only_number(text: str) -> Node | None:
    numbers = [match.group() for match in _NUMBER.finditer(text)]
    return read(numbers[0].replace("$", "")) if len(numbers) == 1 else None


def read_conclusion(text: str) -> Node | None:
    """Return the value of a response's last sentence, where there is no sign of an answer."""
    lines = [line for line in text.strip().splitlines() if line.strip() and not _RULE.fullmatch(line)]
    if not lines:
        return None
    if len(lines) == 1 and (found := _value(lines[0])) is not None:
        return found if found.op != "text" or " " not in found.args[0] else None
    last = [part for part in _SENTENCES.split(lines[-1]) if part.strip()][-1]
    found = read_sentence(last, announced=False)
    return found if found is not None and found.op != "text" else None
