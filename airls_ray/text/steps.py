"""Where the reasoning steps of a text end, by one of several rules; imports nothing heavy.

A rule works on text. `TextCodec.step_ends` carries its positions over to tokens: a token belongs to the step
in which it begins, so that the steps' tokens joined are always the original tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

StepRule = Literal["delimiter", "lines", "blank_lines", "sentences", "numbered", "code_lines"]

_MASK = "\0"  # stands for a character that no rule may read: neither blank nor a letter
_MATH = re.compile(
    r"\\\[.*?(?:\\\]|\Z)"
    r"|\\\(.*?(?:\\\)|\Z)"
    r"|\$\$.*?(?:\$\$|\Z)"
    r"|\\begin\{(?P<environment>[^}]*)\}.*?(?:\\end\{(?P=environment)\}|\Z)"
    r"|\[asy\].*?(?:\[/asy\]|\Z)"
    # As in Pandoc, so that the dollars of "$12 for 2, so $6 each" are no formula.
    r"|(?<![\\$])\$(?=[^\s$])(?:(?!\n\s*\n)[^$\\]|\\.)*?(?<=\S)\$(?![\d$<])",
    re.DOTALL,
)
_CLOSERS = "\"'\u201d\u2019\u00bb)]}*_"
_SENTENCE = re.compile(rf"[.!?][{re.escape(_CLOSERS)}]*(?=\s+\S)|[\u3002\uff01\uff1f](?=\s*\S)")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*(?=\S)")
_INITIALISM = re.compile(r"(?:\b[A-Za-z]\.){2,}\Z")
_LIST_NUMBER = re.compile(r"(?:\A|\n)[ \t]*\(?\d{1,3}\.\Z")
_ABBREVIATION = re.compile(
    r"(?:al|approx|assoc|cf|co|corp|cor|def|dept|dr|eqs?|eqn|est|ex|figs?|ft|gov|inc|jr|lbs?|lem|ltd|max|min|"
    r"mr|mrs|ms|mt|nos?|oz|pp|prof|prop|sec|sq|sr|st|thm|vol|vs)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"(?<=\n)[ \t>]*(?:\#{1,6}[ \t]+)?(?:\*\*|__)?"
    r"(?:(?:Step|STEP|step)[ \t]*\d{1,3}\b|\(?\d{1,3}[.):])(?=[\s.:)*_]|\Z)"
)
_CODE_TOKEN = re.compile(
    r"(?P<text>\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
    r"|(?P<comment>\#[^\n]*)|(?P<open>[\[({])|(?P<close>[\])}])|(?P<join>\\\r?\n)|(?P<line>\n[ \t\r]*\n|\n)",
    re.DOTALL,
)


def cut(text: str, rule: StepRule) -> list[int]:
    r"""Return the positions in `text` where a step ends and the next begins, rising, without 0 and the end.

    Between two of them there is always something that is not blank. Rules: `lines` and `blank_lines` end a
    step behind the line feed; `sentences` behind the punctuation (not in numbers, abbreviations, formulas)
    and at blank lines; `numbered` before a line such as `2.`, `(2)` or `Step 2:`; `code_lines` behind the
    line feed of a whole statement (brackets, long strings and `\` join lines).
    """
    kept = [0]
    for position in _RULES[rule](text):
        if text[kept[-1] : position].strip():
            kept.append(position)
        elif len(kept) > 1:  # blank text belongs to the step before
            kept[-1] = position
    while len(kept) > 1 and not text[kept[-1] :].strip():
        kept.pop()
    return kept[1:]


def end_of_step(rule: StepRule, delimiter: str) -> str:
    """Return the text that ends a step by `rule` in most responses (`delimiter`: of that rule).

    Nothing for `sentences`: what stands between two of them begins the second.
    """
    ends: dict[StepRule, str] = {"delimiter": delimiter, "blank_lines": "\n\n", "sentences": ""}
    return ends.get(rule, "\n")


def surely_ends(piece: str, rule: StepRule) -> bool:
    """Whether a step is over after a token with the text `piece`, whatever follows.

    Only such tokens may stop a sampler. The other rules have to see what comes next, or before.
    """
    if rule == "lines":
        return "\n" in piece
    return rule == "blank_lines" and re.search(r"\n[ \t\r]*\n", piece) is not None


def _lines(text: str) -> Iterator[int]:
    return (match.end() for match in re.finditer("\n", text))


def _blank_lines(text: str) -> Iterator[int]:
    return (match.end() for match in _BLANK_LINE.finditer(text))


def _numbered(text: str) -> Iterator[int]:
    return (match.start() for match in _NUMBERED.finditer(text))


def _sentences(text: str) -> list[int]:
    masked = _MATH.sub(_mask, text)
    ends = [match.end() for match in _SENTENCE.finditer(masked) if _ends_sentence(masked, match)]
    return sorted({*ends, *_blank_lines(masked)})


def _mask(match: re.Match[str]) -> str:
    r"""Hide a formula; where it closes a sentence, as in `\[ a = b. \]`, its last character says so."""
    inner = re.sub(r"(\\\]|\\\)|\${1,2}|\\end\{[^}]*\})\Z", "", match.group()).rstrip()
    return _MASK * (len(match.group()) - 1) + ("." if inner.endswith((".", "!", "?")) else _MASK)


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    following = text[match.end() :].lstrip()[:1]
    if following.islower():
        return False
    if match.group()[0] != ".":
        return True
    line = text[max(0, match.start() - 40) : match.start() + 1]
    word = re.search(r"([A-Za-z]+)\.\Z", line)
    if word and _ABBREVIATION.fullmatch(word.group(1)) and not _closes_unit(word.group(1), following):
        return False
    return not (_INITIALISM.search(line) or _LIST_NUMBER.search(line))


def _closes_unit(word: str, following: str) -> bool:
    """Whether an abbreviated unit ends its sentence: `3 ft. The` does, `3 sq. ft` does not."""
    return word.lower() in ("ft", "lb", "lbs", "oz", "max", "min", "no", "sec") and following.isupper()


def _code_lines(text: str) -> Iterator[int]:
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


_RULES: dict[StepRule, Callable[[str], Iterator[int] | list[int]]] = {
    "lines": _lines,
    "blank_lines": _blank_lines,
    "sentences": _sentences,
    "numbered": _numbered,
    "code_lines": _code_lines,
}
