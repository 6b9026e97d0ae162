r"""Halves of surrogate pairs: Python strings can hold them, UTF-8, Arrow and tokenizers cannot.

They come from JSON escapes (`"\ud83d"` without its other half, as in a text that was cut in the middle of an
emoji) and from arguments and file names that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""The character that stands for what could not be read."""


def half_character(value: Any) -> str | None:
    r"""Return the first half of a surrogate pair in a text, or in lists and objects of them, as `\ud83d`."""
    if isinstance(value, str):
        found = None if value.isascii() else _HALF.search(value)
        return None if found is None else f"\\u{ord(found.group()):04x}"
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next((half for one in value if (half := half_character(one))), None)
    return None


def whole_characters(text: str) -> str:
    """Return `text` with the replacement character for each half of a surrogate pair."""
    return text if text.isascii() else _HALF.sub(REPLACEMENT, text)
