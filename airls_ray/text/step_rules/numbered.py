"""Before a line such as `2.`, `(2)` or `Step 2:`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBERED = re.compile(
    r"(?<=\n)[ \t>]*(?:\#{1,6}[ \t]+)?(?:\*\*|__)?"
    r"(?:(?:Step|STEP|step)[ \t]*\d{1,3}\b|\(?\d{1,3}[.):])(?=[\s.:)*_]|\Z)"
)


class Rule:
    """What follows a line feed must be seen, so that no token surely ends a step."""

    def ends(self, text: str) -> Iterator[int]:
        """Yield where numbered lines begin."""
        return (match.start() for match in _NUMBERED.finditer(text))
