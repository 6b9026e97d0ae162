"""Mathematical answers: found by their plainest sign, read strictly, and compared exactly.

What our own parser (`airls_ray.tasks.maths`) cannot read goes to math-verify, and so does a whole response
without any sign of an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airls_ray.tasks import math_library
from airls_ray.tasks.answers import after_hash, announcements, boxed, tagged, without_thoughts
from airls_ray.tasks.base import Grade
from airls_ray.tasks.maths.comparison import equal
from airls_ray.tasks.maths.naming import name
from airls_ray.tasks.maths.notation import WORD_CLOSE, WORD_OPEN, plain
from airls_ray.tasks.maths.reading import read
from airls_ray.tasks.maths.sentences import read_conclusion, read_sentence
from airls_ray.tasks.maths.tree import Node, is_constant

_CACHED = 4096
_LONGEST_RESPONSE = 20_000
"""Characters at the end of a response without a sign that math-verify is given."""
_MOST_WORDS = 5
_LONGEST_CHOICE = 300
_LONGEST_LETTER = 20
_LONGEST_TIMES = 2000
_CHOICE = re.compile(
    r"(?:(?i:option|choice|answer)\s+)?(?:\(([A-Z])\)|([A-Z])(?:[:.)]|\Z))\s*(?P<words>.*)", re.DOTALL
)
_LETTER_UNIT = re.compile(
    r"(?<=\d)(?:\s+|(?=[gL]))[mgshtlLJNVWKACF](?:\s*[/*]\s*[a-zA-Z]{1,3})?(?:\s*\^\s*\{?-?[1-3]\}?)?\Z"
)
_OTHER_CHOICE = re.compile(r"\([A-Z]\)|\b(?:or|and)\s+[A-Z]\b")
_LETTER = re.compile(r"\W*([A-Z])\W*")
_TIME = re.compile(r"(?<![\d:])(\d{1,2})(?::(\d\d))?(?::\d\d)?\s*([ap])\.?\s?m\b", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What an answer was read as: by our parser, by math-verify, or as words alone."""

    text: str
    node: Node | None = None
    found: tuple[Any, ...] = ()
    """Expressions of math-verify, where our parser read nothing."""

    @property
    def name(self) -> str:
        """The canonical text: what votes are counted by."""
        said = words(self.text) if len(self.text) < _LONGEST_CHOICE else ""
        letter = chosen_letter(said)
        if letter is not None:
            return letter
        if self.node is not None:
            return name(_without_letter_unit(said) or self.node)
        return str(self.found[0]) if self.found else words(self.text)


def grade_math(answer: str, response: str) -> Grade:
    """Compare the final answer with the right one (run it in a process with its own deadline).

    The final answer is tagged, boxed, behind `####` or announced (`The answer is ...`), else what the last
    sentence says, else what math-verify finds. Thousands separators, currency and units do not count, but
    a.m. is not p.m.; `50%` equals 50 and 0.5. The letter of an option before an answer does not count where
    the right one is no letter: `(B) 12` is 12. An answer of the problem that cannot be read gives the reason
    `unparsable` and outcome 0.
    """
    gold, given = read_gold(answer), read_response(response)
    called = None if given is None else given.name  # also asked for where the right one is not known
    if gold is None:
        return Grade(0.0, called, "unparsable")
    if given is None:
        return Grade(0.0, None)
    return Grade(float(same(gold, given)), called)


@lru_cache(maxsize=_CACHED)
def read_gold(answer: str) -> Answer | None:
    """Return a problem's own answer; None: nothing can be read in it."""
    node = read(boxed(answer) or answer)
    if node is not None:
        return Answer(answer, node)
    return Answer(answer, None, math_library.find(answer)) if re.search(r"\w", words(answer)) else None


def read_response(response: str) -> Answer | None:
    """Return the final answer of a response, None where it has none."""
    said = without_thoughts(response)
    inside = tagged(said)
    if inside is not None:
        return _marked(boxed(inside) or after_hash(inside) or next(announcements(inside), None) or inside)
    marked = boxed(said) or after_hash(said)
    if marked is not None:
        return _marked(marked)
    for told in announcements(said):
        node = read_sentence(told)
        if node is not None and node.op == "text" and len(node.args[0].split()) > _MOST_WORDS:
            continue  # what the answer is about, not what it is
        if node is not None or chosen_letter(told) is not None:
            return Answer(told, node)
    alone = said.strip(" \n*_.")
    if len(alone) < _LONGEST_LETTER and chosen_letter(alone) is not None:
        return Answer(alone)
    node = read_conclusion(said)
    if node is not None:
        return Answer(said, node)
    return _by_library(said[-_LONGEST_RESPONSE:])


def _marked(text: str) -> Answer:
    """Return an answer that a sign marks: whatever it says, no other counts."""
    node = read(text) or read_sentence(words(text), marked=True)
    if node is not None:
        return Answer(text, node)
    found = math_library.find(text)
    return Answer(text, None, found if math_library.keeps_numbers(text, found) else ())


def _by_library(text: str) -> Answer | None:
    found = math_library.find_anywhere(text)
    if not found:
        return None
    said = math_library.as_text(found[0])
    node = read(said)
    return Answer(said, node, () if node is not None else found)


def same(gold: Answer, given: Answer) -> bool:
    """Whether an answer is the right one."""
    if _other_half_of_the_day(gold.text, given.text):
        return False
    if gold.node is not None and given.node is not None and equal(gold.node, given.node):
        return True
    letter = _LETTER.fullmatch(words(gold.text))
    if letter is not None:
        return chosen_letter(words(given.text)) == letter[1]
    behind = _behind_letter(words(given.text))
    if gold.node is not None and behind is not None and equal(gold.node, behind):
        return True
    if gold.node is not None and given.node is not None:
        bare = _without_letter_unit(words(given.text)) if is_constant(gold.node) else None
        return bare is not None and equal(gold.node, bare)
    if words(gold.text) == words(given.text):
        return True
    return _same_by_library(gold, given)


def _same_by_library(gold: Answer, given: Answer) -> bool:
    """Ask math-verify, and where it sees only half (an integral, a sum) compare what that comes to."""
    theirs = given.found or math_library.find(given.text, strictly=True)
    if math_library.agree(gold.found or math_library.find(gold.text), theirs):
        return True
    nodes = [one.node or read(math_library.worked_out(one.found) or "?") for one in (gold, given)]
    return nodes[0] is not None and nodes[1] is not None and equal(nodes[0], nodes[1])


def _without_letter_unit(text: str) -> Node | None:
    """Return a number whose unit could be variables, too: 5 m, 5 m/s; None where there is none."""
    unit = _LETTER_UNIT.search(text)
    node = None if unit is None else read(text[: unit.start()])
    return node if node is not None and is_constant(node) else None


def _other_half_of_the_day(gold: str, given: str) -> bool:
    """Whether a time is a.m. in one answer and p.m. in the other; one that does not say leaves it open."""
    right = _times(gold)
    said = _times(given) if right else set()
    named = {time for time, _ in said}
    return any(time in named for time, half in right if (time, half) not in said)


def _times(text: str) -> set[tuple[tuple[int, int], str]]:
    """Return the times of a text that stand with a.m. or p.m.: hour and minute, and `a` or `p`."""
    found = _TIME.findall(words(text[-_LONGEST_TIMES:]))
    return {((int(hour), int(minute or 0)), half.lower()) for hour, minute, half in found}


def _behind_letter(text: str) -> Node | None:
    """Return what stands behind the one letter of an option: 12 of `(B) 12`; None where there is none."""
    chosen = _CHOICE.fullmatch(text) if chosen_letter(text) is not None else None
    return read(chosen["words"]) if chosen is not None and chosen["words"] else None


def chosen_letter(text: str) -> str | None:
    """Return the option of `C: the third one` or `(C) 15`; None where it is none, or more than one."""
    chosen = _CHOICE.fullmatch(text)
    if chosen is None or _OTHER_CHOICE.search(chosen["words"]):
        return None
    return str(chosen[1] or chosen[2])


def words(text: str) -> str:
    """Return an answer as plain words, for answers that are nothing else."""
    clean = plain(text).replace(WORD_OPEN, " ").replace(WORD_CLOSE, " ")
    return " ".join(clean.split())
