"""HTML by function calls. Text is escaped unless it is `Markup`, since rollouts may hold anything."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

_VOID = {"meta", "br", "input"}


class Markup(str):
    """Text that is HTML already: only what `element` returned or a constant of ours."""

    __slots__ = ()


Child = str | int | float | None | Iterable[Any]
"""What an element may hold: text (escaped), markup, numbers, lists of these; None is nothing."""


def join(*children: Child) -> Markup:
    """Return the children one after the other, text escaped."""
    return Markup("".join(_render(child) for child in children))


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return `<tag ...>children</tag>`.

    Attributes: `class_` becomes `class`, `data_x` becomes `data-x`; True is a bare attribute; None and
    False leave it out.
    """
    parts = [tag]
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value), quote=True)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if tag in _VOID else f"{opening}{join(*children)}</{tag}>")


def data_script(value: Any) -> Markup:
    """Return `value` as JSON that a script of the page reads, safe inside HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: no U+2028
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json">{text}</script>')


def table(
    headers: Iterable[Child], rows: Iterable[Iterable[Child]], groups: Iterable[tuple[str, int]] = ()
) -> Markup:
    """Return a table whose first column names the row; `groups` (text, columns) stand over the headers."""
    over = [element("th", text, colspan=span, scope="colgroup") for text, span in groups]
    head = [element("th", text, scope="col") for text in headers]
    body = []
    for row in rows:
        first, *cells = row
        body.append(element("tr", element("th", first, scope="row"), [element("td", cell) for cell in cells]))
    over_row = element("tr", over) if over else None
    content = element("table", element("thead", over_row, element("tr", head)), element("tbody", body))
    return element("div", content, class_="scroll")


def _render(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return html.escape(str(child), quote=False)
    return "".join(_render(part) for part in child)
