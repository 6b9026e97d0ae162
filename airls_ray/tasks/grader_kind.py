"""How a final answer is read out of a response and compared: what may be named in `task.grader`.

Opened in grader processes alone, but for what is built in (`stated_by`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import Rule, read_rule
from airls_ray.tasks.base import Grade
from airls_ray.tasks.own import grade_of

OF_RESPONSES = ("response", "answer", "row", "answer_marker")
"""What a grader may take: the response, the right answer, the other fields of the problem (its details), and
the setting of that name."""
_OF_ANSWERS = ("answer", "answer_marker")


@dataclass(frozen=True)
class Grader:
    """What judges responses."""

    rule: Rule
    stated: Rule | None = None
    """Gives a response that states an answer, by which the answers of the data are tried."""
    warm_up: Callable[[], Any] = lambda: None
    """Imports what the first verdict needs."""

    def grade(self, response: str, answer: str, row: Mapping[str, Any], answer_marker: str) -> Grade:
        """Judge a response.

        Raises:
            ValueError: what came out is no verdict; whatever the user's code raises comes as it is.
        """
        known = {"response": response, "answer": answer, "row": row, "answer_marker": answer_marker}
        return grade_of(self.rule(known))

    def states(self, answer: str, answer_marker: str) -> str | None:
        """Return a response that states an answer, None where nobody knows how one does."""
        if self.stated is None:
            return None
        return str(self.stated({"answer": answer, "answer_marker": answer_marker}))


def read_grader(found: Any, options: Mapping[str, Any]) -> Grader:
    """Return what a door names as a grader.

    Raises:
        DoorError: it is neither a function of keywords that are known nor a class with such a `grade`.
    """
    if not inspect.isclass(found):
        return Grader(read_rule(found, options, OF_RESPONSES))
    made = found(**options)
    grade, stated = getattr(made, "grade", None), getattr(made, "stated", None)
    if grade is None:
        raise DoorError("has no method grade(response, answer)")
    says = None if stated is None else read_rule(stated, {}, _OF_ANSWERS)
    warm_up = getattr(made, "warm_up", None)
    rule = read_rule(grade, {}, OF_RESPONSES)
    return Grader(rule, says) if warm_up is None else Grader(rule, says, warm_up)


GRADER = Kind(
    name="grader",
    protocol=(
        f"a function of keywords among {', '.join(OF_RESPONSES)} that returns an outcome in [0, 1] or "
        "(outcome, answer), or a class with such a method grade"
    ),
    package="airls_ray.tasks.graders",
    attribute="Grader",
    example="exact",
    make=read_grader,
)
"""How answers are read and compared (`task.grader`)."""
