"""Multiple choice: options in an order drawn for each problem, and answers by letter.

`details` holds the `choices` in the order of the source and the `permutation`: at position i the policy sees
choice `permutation[i]`. Answers (`Problem.answer`, `Grade.answer`) are letters in the order of the source, so
that votes over several orders of one question add up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from string import ascii_uppercase

from airls_ray.tasks.answers import after_hash, announced, last_boxed, tagged, without_thoughts
from airls_ray.tasks.base import Grade, Problem
from airls_ray.tasks.generate import content_hash

MOST_CHOICES = len(ascii_uppercase)
"""Options of a problem: each has a letter."""
_DRESSED = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_LEADING = re.compile(r"\W*(?P<named>(?:option|choice)\s+)?(?P<letter>[A-Z])(?![A-Z0-9'])", re.IGNORECASE)
_NO_NOUN = r"[,;]?\s+(?:is|because|since|as|for|and|or|not|but|which|due|given|if|so|the)\b"
"""What follows neither the article `a` nor the pronoun `I`."""
_ALONE = re.compile(rf"\W*\Z|\s*[):]|\.(?!\w)|{_NO_NOUN}")
_NO_WORD = re.compile(rf"(?!\s+[a-z])|{_NO_NOUN}")
_MARKED = re.compile(r"\(([A-Z])\)|\*\*([A-Z])\b[.):]?\*\*")


def with_choices(problem: Problem, options: Sequence[str], right: int) -> Problem:
    """Return `problem` with its options shown, the answer as a letter, and the answer behind every trace.

    The order depends on the problem's identifier alone. `right` is the position of the right option. There
    are at most `MOST_CHOICES` options.
    """
    order = list(range(len(options)))
    Random(content_hash("choices/" + problem.problem_id)).shuffle(order)
    shown = "\n".join(f"{ascii_uppercase[at]}) {options[source]}" for at, source in enumerate(order))
    letter = ascii_uppercase[order.index(right)]
    return replace(
        problem,
        prompt=f"{problem.prompt}\n\n{shown}",
        answer=ascii_uppercase[right],
        traces=tuple(f"{trace}\n\nThe answer is ({letter})." for trace in problem.traces),
        details={**problem.details, "choices": list(options), "permutation": order},
    )


def grade_choice(problem: Problem, response: str) -> Grade:
    """Judge the letter of a response, boxed, behind `####`, announced, alone, or the last in brackets."""
    order = problem.details["permutation"]
    letter = _letter(response, len(order))
    if letter is None:
        return Grade(0.0, None)
    source = ascii_uppercase[order[ascii_uppercase.index(letter)]]
    return Grade(float(source == problem.answer), source)


def _letter(response: str, count: int) -> str | None:
    response = without_thoughts(response)
    response = tagged(response) or response
    places = (last_boxed(response), after_hash(response), announced(response), response.strip())
    for number, place in enumerate(places):
        if not place or (number == len(places) - 1 and len(place) > 3):
            continue
        letter = _leading(_DRESSED.sub(r"\1", place))
        if letter is not None and letter in ascii_uppercase[:count]:
            return letter
    marked = [one or other for one, other in _MARKED.findall(response)]
    inside = [one for one in marked if one in ascii_uppercase[:count]]
    return inside[-1] if inside else None


def _leading(text: str) -> str | None:
    """Return the letter that a text begins with, if it is no word: `a decrease`, `A decrease`, `I think`."""
    match = _LEADING.match(text)
    if match is None:
        return None
    letter, rest = match["letter"], text[match.end() :].lstrip("*_`$}")
    if match["named"] is None and letter.islower() and not _ALONE.match(rest):
        return None
    if match["named"] is None and letter in "AI" and not _NO_WORD.match(rest):
        return None
    return letter.upper()
