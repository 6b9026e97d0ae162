"""Behind a blank line."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")
_IN_A_PIECE = re.compile(r"\n[ \t\r]*\n")


def blank_line_ends(text: str) -> Iterator[int]:
    """Yield where the text behind blank lines begins."""
    # Without the blanks at its end, so that text follows every match: to look for it takes quadratic time.
    return (match.end() for match in _BLANK_LINE.finditer(text.rstrip()))


class Rule:
    """A blank line may have blanks in it."""

    stop = "\n\n"

    def ends(self, text: str) -> Iterator[int]:
        """Yield where the text behind blank lines begins."""
        return blank_line_ends(text)

    def surely_ends(self, piece: str) -> bool:
        """Whether there is a blank line in a token's text."""
        return _IN_A_PIECE.search(piece) is not None
