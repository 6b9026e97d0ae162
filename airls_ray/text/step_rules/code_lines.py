r"""Behind a whole statement: brackets, long strings and `\` join lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

_CODE_TOKEN = re.compile(
    r"(?P<text>\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
    r"|(?P<comment>\#[^\n]*)|(?P<open>[\[({])|(?P<close>[\])}])|(?P<join>\\\r?\n)|(?P<line>\n[ \t\r]*\n|\n)",
    re.DOTALL,
)


class Rule:
    """What came before a line feed must be seen, so that no token surely ends a step."""

    def ends(self, text: str) -> Iterator[int]:
        """Yield the positions behind the line feeds of whole statements."""
        depth = 0
        for match in _CODE_TOKEN.finditer(text):
            if match.lastgroup == "open":
                depth += 1
            elif match.lastgroup == "close":
                depth = max(0, depth - 1)
            elif match.lastgroup == "line":
                if match.group() != "\n":
                    depth = 0  # a blank line: a bracket that was never closed joins no more
                if depth == 0:
                    yield match.end()
