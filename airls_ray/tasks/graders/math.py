"""Values are equal as mathematics: a tag, a box, `####`, an announcement, the last sentence, math-verify."""

from __future__ import annotations

from airls_ray.tasks.base import Grade
from airls_ray.tasks.math_grader import grade_math


class Grader:
    """Reads and compares mathematics."""

    def grade(self, response: str, answer: str) -> Grade:
        """Compare the final answer of a response with the right one."""
        return grade_math(answer, response)

    def stated(self, answer: str) -> str:
        """Return a response that states an answer."""
        return f"\\boxed{{{answer}}}"

    def warm_up(self) -> None:
        """Import what plain numbers do not need: mpmath and math-verify."""
        grade_math("\\sqrt{2}", "$\\int x$")
