"""A place in a list of tokens."""

from __future__ import annotations

from airls_ray.tasks.maths.tree import Unreadable

_DEEPEST = 60


class Cursor:
    """Looks at tokens one after the other; blanks count for nothing."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        """Stand before the first of `found`, pairs of kind and text."""
        self._all = [one for one in found if one[0] != "space"]
        self._at = 0
        self._depth = 0

    def peek(self) -> str:
        """Return the text of the next token, nothing at the end."""
        return self._all[self._at][1] if self._at < len(self._all) else ""

    def kind(self) -> str:
        """Return the kind of the next token, `end` at the end."""
        return self._all[self._at][0] if self._at < len(self._all) else "end"

    def previous_kind(self) -> str:
        """Return the kind of the last token that was taken."""
        return self._all[self._at - 1][0] if self._at else "start"

    def next(self) -> str:
        """Take the next token, whatever it is."""
        text = self.peek()
        if not text and self.kind() == "end":
            raise Unreadable("the answer ends too early")
        self._at += 1
        return text

    def take(self, *wanted: str) -> str | None:
        """Take the next token if it is one of `wanted`."""
        return self.next() if self.kind() != "end" and self.peek() in wanted else None

    def need(self, *wanted: str) -> str:
        """Take one of `wanted`.

        Raises:
            Unreadable: something else comes.
        """
        found = self.take(*wanted)
        if found is None:
            raise Unreadable(f"{' or '.join(wanted)} expected")
        return found

    def replace(self, parts: list[tuple[str, str]]) -> None:
        """Put `parts` in the place of the next token."""
        self._all[self._at : self._at + 1] = parts

    def enter(self) -> None:
        """Go one level deeper.

        Raises:
            Unreadable: nobody nests an answer so deeply.
        """
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unreadable("too deep")

    def leave(self) -> None:
        """Come back from a level."""
        self._depth -= 1
