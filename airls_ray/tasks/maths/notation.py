# ruff: noqa: RUF001, RUF002 - these signs are what is read here
r"""Mathematical answers as people and models write them, brought to one plain notation and cut into tokens.

LaTeX (`\dfrac12`), Unicode (`−½`, `2√3`), plain text (`-2*pi`, `x**2`), Markdown (`**2/3**`), thousands
separators, currency and units all end as the same few tokens. Nothing here knows what an expression means.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 2000
"""Characters of an answer; beyond, nobody means it, and it would be slow to compare."""

_SIGNS = {
    **dict.fromkeys("−‒–—﹣", "-"),
    **dict.fromkeys("×⋅·∙∗", "*"),
    **dict.fromkeys("\u00a0\u2009\u202f\u2002\u2003\u2005\u2006\u2007\u2008\u200a\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", ""),
    **dict.fromkeys("‘’′", "'"),
    **{"÷": "/", "∕": "/", "⁄": "/", "∶": ":", "±": r"\pm ", "∓": r"\mp ", "…": r"\ldots ", "⋯": r"\ldots "},
    **{"≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in "},
    **{"∪": r"\cup ", "∩": r"\cap ", "∞": r"\infty ", "∅": r"\emptyset ", "°": r"^{\circ}", "º": r"^{\circ}"},
    **{"⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "⌊": r"\lfloor "},
    **{"⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}"},
    **{"ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "√": r"\sqrt ", "∛": r"\sqrt[3]"},
    **{"∜": r"\sqrt[4]", "➗": "/", "ⅇ": "e", "ⅈ": "i", "∣": "|", "％": "%", "，": ",", "：": ":"},
}
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z]))")
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "iota",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "tau",
            "upsilon",
            "phi",
            "chi",
            "psi",
            "omega",
            "Gamma",
            "Delta",
            "Theta",
            "Lambda",
            "Xi",
            "Pi",
            "Sigma",
            "Phi",
            "Psi",
            "Omega",
        ],
        strict=True,
    )
)
_WORDED = (
    r"text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|mathsf|bm|boldsymbol|operatorname\*?"
)
_DRESS = re.compile(
    r"\\(?:displaystyle|textstyle|limits|left|right|[bB]igg?[lrm]?|middle|quad|qquad|thinspace|enspace)(?![A-Za-z])\.?"
    r"|(?<!\\)\\[!,;: ]|~"
)
_SPACE = re.compile(r"\s+")
_MIXED = re.compile(r"(?<![\d.\w/])(\d+) (\d+)/(\d+)(?![\d/.])")
_TEXT = re.compile(rf"\\(?:{_WORDED})\s*\{{([^{{}}]*)\}}")
_LETTER = re.compile(r"\\(?:mathrm|mathbf|mathit|boldsymbol|bm|mathsf|text|operatorname)\s*\{\s*([ei])\s*\}")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)")
_OPENED = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", re.DOTALL)
_THOUSANDS = (
    re.compile(r"(?<=\d)(?:,\\!\s*|\\,|\{,\}|\\ |\\;)\s*(?=\d{3}(?!\d))"),
    re.compile(r"(?<![\d.,(\[{])(?<!\d )\d{1,3}(?:,\d{3})+(?![\d,)\]}])"),
    re.compile(r"(?<![\d.,/] )(?<![\d.,^_/{])\d{1,3}(?: \d{3})+(?![\d,]|\.\d{4}| *\d| */)"),
)
_CURRENCY = re.compile(r"(?:\\\$|[€£¥₹]|(?:US|USD )\$|\bRs\.?(?=\s*\d))\s*")
_DOLLARS = re.compile(r"\bUSD?\s*(?=\\?\$)")
_SHORT = re.compile(r"\\(?:d|t|c)frac(?![A-Za-z])")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|(?<=[\d}])\s*degrees?\b")
_PERCENT = re.compile(
    r"(?<=[\d}])\s*\ue000?\s*\b(?:percent|per cent|pct)(?:age)?(?: points?)?\b\s*\ue001?", re.IGNORECASE
)
_ORDINAL = re.compile(
    r"(?<=\d)(?:st|nd|rd|th)\b|(?<=\d)\s*\^\s*\{?\s*\ue000?\s*(?:st|nd|rd|th)\s*\ue001?\s*\}?"
)
_REPEATING = re.compile(
    r"(?<![\d.])(\d{0,20})\.(\d{0,20})(?:\\(?:overline|bar|dot|overset\{[^{}]*\})\s*(?:\{(\d+)\}|(\d))|((?:\d\u0305)+)|\((\d+)\))"
)
_PERIODIC = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{0,9}?)(\d{1,9}?)\3{2,9}(?:\\(?:l|c)?dots|\.\.\.)")

WORD_OPEN, WORD_CLOSE = "\ue000", "\ue001"
"""Stand around what LaTeX sets as text, until it is known whether it is a unit."""


def plain(text: str) -> str:
    r"""Return an answer without its dress: what is left is numbers, letters, operators and LaTeX commands.

    Text in formulas (`\text{ cm}`) is kept between WORD_OPEN and WORD_CLOSE.
    """
    text = unbold(in_ascii(_DOLLARS.sub("", text)))
    text = _DRESS.sub(_space_of, _strip_dollars(text))
    text = _BOX.sub("", text)
    text = _LETTER.sub(r" \1 ", text)
    while True:
        dressed = _TEXT.sub(f"{WORD_OPEN}\\1{WORD_CLOSE}", text)
        if dressed == text:
            break
        text = dressed
    text = _SHORT.sub(lambda _: r"\frac", text)
    text = _ORDINAL.sub("", _DEGREES.sub(" ", text))
    text = _CURRENCY.sub("", _PERCENT.sub("%", text))
    for separator in _THOUSANDS[1:]:
        text = separator.sub(lambda match: re.sub(r"[, ]", "", match.group()), text)
    text = _PERIODIC.sub(_repeated, _REPEATING.sub(_repeated, text))
    text = _SPACE.sub(" ", text).lstrip(" ,;:").rstrip(" .,;:")
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text)


def in_ascii(text: str) -> str:
    """Return `text` with mathematical signs of Unicode written as LaTeX."""
    if text.isascii():
        return text
    text = re.sub(r"(?:\d\u0305)+", lambda m: r"\overline{" + m.group().replace("\u0305", "") + "}", text)
    text = _ROOT.sub(lambda match: rf"{_SIGNS[match[1]].strip()}{{{match[2]}}}", text)
    parts: list[str] = []
    for sign in text:
        before = parts[-1] if parts else ""
        if sign in _SIGNS:
            parts.append(_SIGNS[sign])
        elif sign in _SUPERSCRIPTS:
            parts.append(_script(before, "^{", _SUPERSCRIPTS[sign], parts))
        elif sign in _SUBSCRIPTS:
            parts.append(_script(before, "_{", _SUBSCRIPTS[sign], parts))
        elif sign in _GREEK:
            parts.append(f"\\{_GREEK[sign]} ")
        elif unicodedata.decomposition(sign).startswith("<fraction>"):
            top, _, bottom = unicodedata.normalize("NFKC", sign).partition("⁄")
            parts.append(rf"\frac{{{top}}}{{{bottom or 1}}}")
        elif unicodedata.decomposition(sign).startswith(("<wide>", "<font>")):
            parts.append(unicodedata.normalize("NFKC", sign))
        else:
            parts.append(sign)
    return "".join(parts)


def _script(before: str, opening: str, sign: str, parts: list[str]) -> str:
    """Return a raised or lowered sign; one that follows another joins it."""
    if before.startswith(opening):
        parts.pop()
        return f"{before[:-1]}{sign}}}"
    return f"{opening}{sign}}}"


def unbold(text: str) -> str:
    """Return `text` without Markdown's emphasis; `x**2` is a power and stays."""
    text = text.strip()
    while True:
        before = text
        text = _OPENED.sub(_emphasis, text)
        for mark in ("**", "__", "`", "*"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)].strip()
        if text == before:
            return text


def _emphasis(match: re.Match[str]) -> str:
    """Return what is inside `**...**`, unless its marks are powers: `2**3 + 3**4`."""
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    glued = before.isalnum() or (before in (")", "}") and bool(before))
    return match.group() if glued or after.isalnum() else match.group(1)


def _strip_dollars(text: str) -> str:
    """Return `text` without the marks around formulas; a dollar before a number is currency and goes, too."""
    text = _THOUSANDS[0].sub("", text)
    return re.sub(r"(?<!\\)(?:\$|\\[()\[\]])", " ", text)


def _space_of(match: re.Match[str]) -> str:
    return "." if match.group().endswith(".") and match.string[match.end() :][:1].isdigit() else " "


def _repeated(match: re.Match[str]) -> str:
    """Return a repeating decimal as a fraction: 0.1(6) is (16 - 1) / 90."""
    whole, still = match[1] or "0", match[2]
    block = re.sub(r"\D", "", next(group for group in match.groups()[2:] if group))
    if len(whole + still + block) > 60:
        return match.group()
    bottom = (10 ** len(block) - 1) * 10 ** len(still)
    top = int(whole + still + block) - int(whole + still)
    return rf"(\frac{{{top}}}{{{bottom}}})"


TOKEN = re.compile(
    r"(?P<number>(?:\d+\.\d+|\d+\.(?!\d|\.)|\d+|\.\d+)(?:[eE][+-]?\d+(?![\d.A-Za-z^]))?)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}|%&#_]|\\\\)"
    rf"|{WORD_OPEN}(?P<text>[^{WORD_CLOSE}]*){WORD_CLOSE}"
    r"|(?P<word>[A-Za-z]+'*)(?!\d)"
    r"|(?P<sign>\*\*|<=|>=|!=|==|->|[-+*/^_=<>!(){}\[\]|,;:%&])"
    r"|(?P<dots>\.\.\.)"
    r"|(?P<space>\s+)"
)


def tokens(text: str) -> list[tuple[str, str]] | None:
    """Return (kind, text) of every token of a plain text, None where something is no token."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
    return found
