"""What a PRM is asked as text: a problem and the steps of a solution, a score in [0, 1] for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from airls_ray.errors import DataError


@dataclass(frozen=True)
class StepText:
    """A problem and a solution, whole or begun, in steps."""

    problem: str
    """Text of the problem, without a template."""
    steps: Sequence[str]
    """Text of each step; none is blank."""
    finished: bool = True
    """Whether the last step ends the solution. Only this project's PRMs ask: they read the score of a
    last step at the end of sequence."""
    where: str = "the solution"
    """Where it comes from, for messages: a file and a row."""


class StepScorer(Protocol):
    """Whatever scores the steps of solutions."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """Return for each item one score in [0, 1] for each of its steps, in order.

        The result does not depend on the order of the items, nor (up to rounding) on the other items.

        Raises:
            DataError: an item does not fit the model: a blank step, a marker in a text, too many tokens.
        """
        ...


def refuse_blank_steps(item: StepText) -> None:
    """Raise a DataError if a step has no text: nothing could be scored, and no score is made up."""
    for number, step in enumerate(item.steps, 1):
        if not step.strip():
            raise DataError(f"{item.where}: step {number} is blank; remove it or join it to another step")


def refuse_marker(item: StepText, marker: str, texts: Sequence[str]) -> None:
    """Raise a DataError if one of the item's `texts` contains the marker that the PRM reads scores at."""
    for text in texts:
        if marker in text:
            raise DataError(
                f"{item.where}: {text.strip()[:60]!r} contains {marker!r}, the marker at which this PRM is "
                "read; take it out of the text"
            )
