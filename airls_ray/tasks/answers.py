r"""Where the final answer of a text is. Imports nothing heavy.

The plainest sign counts: a tag, a box, GSM8K's `####`, an announcement in words. What a model thinks to
itself is cut off before (`without_thoughts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_THOUGHTS = "think|thinking|thought|thoughts|reasoning"
_MARK = re.compile(rf"<(?P<end>/?)(?:{_THOUGHTS})\b[^<>]{{0,80}}>", re.IGNORECASE)
_TAG = re.compile(r"<(answer|final_answer|final)>(.*?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b\s*")
_BARE = re.compile(r"[^\s$\\{}]+")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"[\s$]*(?:,|;)?[\s$]*(?:and|or|\\text\{\s*(?:and|or)\s*\})?[\s$]*")
_HEADING = re.compile(
    r"[\s*_]*(?:(?:the\s+)?(?:final\s+)?(?:answer|solution|result)\b|step\b|case\b|part\b)", re.IGNORECASE
)
_NAMED = r"(?:the[ \t]+)?(?:final[ \t]+)?(?:answer|result|solution)"
_ANNOUNCED = re.compile(
    r"(?:(?<![-\w])answer\b(?P<between>[^\n.:?]{0,80}?)\b(?:is|are|be)\b"
    r"(?!\s*(?:not|n't|wrong|incorrect|the same)\b)\s*:?"
    r"|\banswer\s*=|\b(?:correct|right|best)\s+(?:option|choice)\s+is\b:?"
    r"|\b(?:final|my|correct|right)\s+(?:answer|result|solution)\b[ \t*_]*:"
    rf"|^[ \t#>*_-]{{0,20}}(?:{_NAMED}|A|ans)[ \t]*[*_]*[ \t]*:"
    rf"|^[ \t]*\#{{1,6}}[ \t]*[*_]*{_NAMED}[ \t*_]*:?(?=[ \t*_]*$)"
    rf"|^[ \t]*\*\*[ \t]*{_NAMED}[ \t]*:?[ \t]*\*\*[ \t]*:?(?=[ \t]*$))"
    r"[ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_MOST_ANNOUNCEMENTS, _LONGEST_LINE = 20, 1000
_DENIED = re.compile(r"\bnot\b|n't\b|\bif\b|\bwhether\b", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"(?<!\\)(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)(?<!\bvs)(?<!\bapprox)[.!?](?:\s|$)"
)
_BULLET = re.compile(r"\A\s*(?:[-*+>]\s+)+")
_BLOCK = re.compile(r"\s*(?:(?P<display>\$\$.*?\$\$|\\\[.*?\\\])|(?P<line>[^\n]+))", re.DOTALL)


def without_thoughts(text: str) -> str:
    """Return what a response says after its thoughts; one that ends in them says nothing.

    An end without a beginning counts as well: many templates put the beginning into the prompt.
    """
    kept: list[str] = []
    at, thinking = 0, False
    for mark in _MARK.finditer(text):
        if mark["end"] and not thinking:
            kept.clear()
        elif not mark["end"] and not thinking:
            kept.append(text[at : mark.start()])
        thinking = not mark["end"]
        at = mark.end()
    return "\n".join(kept if thinking else [*kept, text[at:]])


def open_thought(prompt: str) -> str:
    """Return what a prompt ends in if that opens a thought, with the tag at its beginning; else nothing."""
    *_, last = [None, *_MARK.finditer(prompt)]
    opens = last is not None and not last["end"] and not prompt[last.end() :].strip()
    return prompt[last.start() :] if last is not None and opens else ""


def tagged(text: str) -> str | None:
    """Return the content of the last `<answer>`, also one that the response ends in; None: there is none."""
    contents = [match[2].strip() for match in _TAG.finditer(text)]
    return next((content for content in reversed(contents) if content), None)


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last whole `\boxed{...}` (or `\fbox`), None if there is none.

    Braces are counted, `\{` and `\}` are no braces; `\boxed 7` counts, too; an empty box does not.
    """
    boxes = _boxes(text)
    return boxes[-1][2] if boxes else None


def boxed(text: str) -> str | None:
    r"""Return what the last boxes hold: those that only a comma, `and` or `or` parts are one list."""
    boxes = _boxes(text)
    if not boxes:
        return None
    last = [boxes.pop()]
    while boxes and _BETWEEN_BOXES.fullmatch(text, boxes[-1][1], last[0][0]):
        last.insert(0, boxes.pop())
    return ", ".join(content for _, _, content in last)


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, content) of the outer boxes that are whole and not empty."""
    found: list[tuple[int, int, str]] = []
    closings: dict[int, int] | None = None
    for match in _BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue
        if text[match.end() : match.end() + 1] == "{":
            closings = _closings(text) if closings is None else closings
            end = closings.get(match.end(), 0)
            content = text[match.end() + 1 : end - 1] if end else ""
        else:
            bare = _BARE.match(text, match.end())
            end, content = (bare.end(), bare.group()) if bare else (0, "")
        if content.strip():
            found.append((match.start(), end, content.strip()))
    return found


def _closings(text: str) -> dict[int, int]:
    """Return the position behind the closing brace of every opening one that has it."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACES.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            found[opened.pop()] = match.end()
    return found


def after_hash(text: str) -> str | None:
    """Return what stands behind the last `####` on its line, None if there is nothing.

    A heading of Markdown is no answer: `#### Step 2: ...`, `#### Final answer`, or words before more text.
    """
    before, found, tail = text.rpartition("####")
    if not found or before.endswith("#"):
        return None
    line, _, more = tail.strip().partition("\n")
    line = line.strip()
    words = re.search(r"[A-Za-z]{2,}", line.split("\\")[0]) is not None
    number = re.match(r"[\s*_$(\\+-]*\.?\d", line) is not None and not re.match(
        r"[\s*_]*\d+[.):]\s*[A-Za-z*]", line
    )
    if not line or line.strip("*_ ").endswith(":") or _HEADING.match(line):
        return None
    return None if more.strip() and words and not number else line


def announced(text: str) -> str | None:
    """Return what the last `the answer is`, `Answer:` or `A:` says, to the end of the line or sentence."""
    return next(announcements(text), None)


def announcements(text: str) -> Iterator[str]:
    """Yield what is announced as the answer, the last first; behind a heading the next line or formula."""
    matches = [one for one in _ANNOUNCED.finditer(text) if not _DENIED.search(one["between"] or "")]
    for match in reversed(matches[-_MOST_ANNOUNCEMENTS:]):
        rest = text[match.end() :][:_LONGEST_LINE].partition("\n")[0].strip()
        if not rest.strip("*_: $"):
            block = _BLOCK.match(text, match.end())
            rest = "" if block is None else _BULLET.sub("", block["display"] or block["line"]).strip()
        said = sentence(rest[:_LONGEST_LINE])
        if said.strip("$\\[") and not rest[len(said) :].lstrip(" *_").startswith(
            "?"
        ):  # a question is no answer
            yield said


def sentence(text: str) -> str:
    """Return the first sentence of a text without Markdown's emphasis around it."""
    end = _SENTENCE_END.search(text)
    said = (text[: end.start()] if end else text).strip()
    return said.strip(" *_") if said.count("*") % 2 or said.strip("*_ ").count("*") == 0 else said
