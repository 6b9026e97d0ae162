"""Behind a line feed."""

from __future__ import annotations

import re
from collections.abc import Iterator


class Rule:
    """Blank lines are no steps of their own."""

    stop = "\n"

    def ends(self, text: str) -> Iterator[int]:
        """Yield the positions behind the line feeds."""
        return (match.end() for match in re.finditer("\n", text))
