"""Where the final answer of a text is: boxed, behind `####`, or announced in words. Imports nothing heavy."""

from __future__ import annotations

import re

_ANNOUNCED = re.compile(
    r"(?:\banswer\b[^\n.:]{0,60}?(?:\bis\b|:|=)|^[ \t]*(?:final )?(?:answer|A)[ \t]*:)[ \t]*:?[ \t*_]*"
    r"(?P<answer>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?:\s|$)")


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last whole `\boxed{...}` (or `\fbox`), None if there is none.

    Braces are counted, `\{` and `\}` are no braces; `\boxed 7` counts, too.
    """
    for match in reversed(list(re.finditer(r"\\f?boxed\b\s*", text))):
        if text[match.end() : match.end() + 1] != "{":
            bare = re.match(r"[^\s$\\{}]+", text[match.end() :])
            if bare:
                return bare.group()
            continue
        content = _braced(text, match.end())
        if content is not None:
            return content.strip() or None
    return None


def _braced(text: str, start: int) -> str | None:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0 and match.group() == "}":
            return text[start + 1 : start + match.start()]
    return None


def after_hash(text: str) -> str | None:
    """Return what stands behind the last `####` on its line, None if there is nothing."""
    _, found, tail = text.rpartition("####")
    line = tail.strip().split("\n", 1)[0].strip()
    return line or None if found else None


def announced(text: str) -> str | None:
    """Return what follows the last `the answer is`, `Answer:` or `A:`, to the end of the line or sentence."""
    matches = [match["answer"].strip() for match in _ANNOUNCED.finditer(text)]
    matches = [one for one in matches if one]
    if not matches:
        return None
    end = _SENTENCE_END.search(matches[-1])
    return (matches[-1][: end.start()] if end else matches[-1]).strip(" *_") or None


def final_answer(text: str) -> str | None:
    """Return the final answer of a response by its plainest sign: boxed, `####`, announced; else None."""
    return last_boxed(text) or after_hash(text) or announced(text)
