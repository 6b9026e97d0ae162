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

_DRESSED = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_LEADING = re.compile(r"\W*(?:(?:option|choice)\s+)?\(?([A-Z])(?![A-Za-z0-9'])\)?", re.IGNORECASE)
_MARKED = re.compile(r"\(([A-Z])\)|\*\*([A-Z])\b[.):]?\*\*")


def with_choices(problem: Problem, options: Sequence[str], right: int) -> Problem:
    """Return `problem` with its options shown, the answer as a letter, and the answer behind every trace.

    The order depends on the problem's identifier alone. `right` is the position of the right option.
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
        match = _LEADING.match(_DRESSED.sub(r"\1", place))
        if match and match[1].upper() in ascii_uppercase[:count]:
            return match[1].upper()
    marked = [one or other for one, other in _MARKED.findall(response)]
    inside = [one for one in marked if one in ascii_uppercase[:count]]
    return inside[-1] if inside else None
