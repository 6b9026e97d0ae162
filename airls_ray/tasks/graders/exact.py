"""The text behind `task.answer_marker`, or else the last line, equals the answer to the letter."""

from __future__ import annotations

from airls_ray.tasks.answers import without_thoughts
from airls_ray.tasks.base import Grade


class Grader:
    """Compares text."""

    def grade(self, response: str, answer: str, answer_marker: str = "####") -> Grade:
        """Compare the text after the last marker, or else the last line, with the answer, thoughts cut."""
        response = without_thoughts(response)
        _, found, tail = response.rpartition(answer_marker) if answer_marker else ("", "", "")
        lines = response.strip().splitlines()
        given = tail.strip() if found else lines[-1].strip() if lines else ""
        return Grade(float(given == answer.strip()), given or None) if given else Grade(0.0, None)

    def stated(self, answer: str, answer_marker: str = "####") -> str:
        """Return a response that states an answer."""
        return f"{answer_marker} {answer}" if answer_marker else answer
