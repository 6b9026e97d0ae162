"""Behind `.`, `!`, `?` and at blank lines; not in numbers, abbreviations and formulas."""

from __future__ import annotations

import re

from airls_ray.text.step_rules.blank_lines import blank_line_ends

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
_INITIALISM = re.compile(r"(?:\b[A-Za-z]\.){2,}\Z")
_LIST_NUMBER = re.compile(r"(?:\A|\n)[ \t]*\(?\d{1,3}\.\Z")
_ABBREVIATION = re.compile(
    r"(?:al|approx|assoc|cf|co|corp|cor|def|dept|dr|eqs?|eqn|est|ex|figs?|ft|gov|inc|jr|lbs?|lem|ltd|max|min|"
    r"mr|mrs|ms|mt|nos?|oz|pp|prof|prop|sec|sq|sr|st|thm|vol|vs)",
    re.IGNORECASE,
)


class Rule:
    """What follows the punctuation must be seen, so that no token surely ends a step."""

    end = ""
    """What stands between two sentences begins the second."""

    def ends(self, text: str) -> list[int]:
        """Return the positions behind the sentences."""
        masked = _MATH.sub(_mask, text)
        ends = [match.end() for match in _SENTENCE.finditer(masked) if _ends_sentence(masked, match)]
        return sorted({*ends, *blank_line_ends(masked)})


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
