"""A grader process that asks math-verify alone, for `answers.py`: started by a pool, never by hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airls_ray.grading.worker import serve
from airls_ray.tasks.base import Grade, Problem


class LibraryTask:
    """Reads and compares as math-verify's own documentation shows, on the whole response."""

    name = "library"

    def grade(self, problem: Problem, response: str) -> Grade:
        """Return the library's verdict."""
        from math_verify import parse, verify

        logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # warns at each call without a limit
        gold = parse(f"${problem.answer}$", parsing_timeout=None)
        given = parse(response, parsing_timeout=None)
        right = verify(gold, given, timeout_seconds=None)
        return Grade(float(right), str(given[0])[:200] if given else None)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> None:
        """Return None: nothing is known about single steps."""
        return None

    def warm_up(self) -> None:
        """Import the library."""
        self.grade(Problem("", "", "1"), "$\\frac{x}{2}$")


if __name__ == "__main__":
    serve(lambda _: LibraryTask())  # type: ignore[arg-type, return-value]
