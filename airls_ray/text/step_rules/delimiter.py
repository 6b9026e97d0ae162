"""Behind the text `task.step_delimiter`."""

from __future__ import annotations

from collections.abc import Sequence


class Rule:
    """A blank step belongs to the one before, a first one to the next."""

    def __init__(self, delimiter: str = "\n\n") -> None:
        """`delimiter`: text that ends a step."""
        self._delimiter = self.stop = self.end = delimiter

    def ends(self, text: str) -> list[int]:
        """Return the positions behind delimiters."""
        ends: list[int] = []
        start, at = 0, text.find(self._delimiter)
        while at >= 0:
            end = at + len(self._delimiter)
            if text[start:at].strip():
                ends.append(end)
            elif ends:
                ends[-1] = end
            start, at = end, text.find(self._delimiter, end)
        return ends

    def piece_ends(self, pieces: Sequence[str]) -> list[int]:
        """Return the ends behind the tokens that complete a delimiter: a sampler stops there, whatever else
        is in the token."""
        ends: list[int] = []
        step: list[str] = []  # the pieces since the last end
        tail, most = "", len(self._delimiter) - 1  # of these the last characters, which may begin a delimiter
        for position, piece in enumerate(pieces, 1):
            step.append(piece)
            tail += piece
            if self._delimiter not in tail:
                tail = tail[max(len(tail) - most, 0) :]
                continue
            text = "".join(step)
            blank, tail = not text.replace(self._delimiter, "").strip(), text.rpartition(self._delimiter)[2]
            step = [tail]
            if not blank:
                ends.append(position)
            elif ends:
                ends[-1] = position
        if ends and not "".join(step).strip():
            ends[-1] = len(pieces)
        return ends
