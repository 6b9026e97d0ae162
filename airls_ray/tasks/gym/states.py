"""Replays: a walk takes one step after the other, and says whether it was right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Walk(Protocol):
    """An entry that is being solved."""

    def take(self, step: str) -> bool:
        """Take a step; whether it is allowed, and the full score can still be reached behind it."""
        ...


class Recorded:
    """string_manipulation: each line must be the state that the package recorded behind the one before."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        """Begin at the given string."""
        recorded: list[str] = entry["metadata"]["states"]
        # A string that no rule changes is its own answer.
        self._left = iter(recorded[1:] or recorded)

    def take(self, step: str) -> bool:
        """Whether the line is the next state."""
        return step.strip() == next(self._left, None)
