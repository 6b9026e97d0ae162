"""HTML from the templates beside this module, small pieces by calls. Text is escaped unless it is `Markup`,
since rollouts may hold anything."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

__all__ = ["Child", "Markup", "data_script", "element", "fill", "table"]

_VOID = {"meta", "br", "input"}

Child = str | int | float | None | Iterable[Any]
"""What an element may hold: text (escaped), markup, numbers, lists of these; None is nothing."""


def fill(template: str, **values: Any) -> Markup:
    """Return a file of `templates/` with its values; None is nothing, an unknown name is an error."""
    return Markup(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("airls_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return `<tag ...>children</tag>`.

    Attributes: `class_` becomes `class`, `data_x` becomes `data-x`; True is a bare attribute; None and
    False leave it out.
    """
    parts = [Markup(tag)]
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(Markup(key))
        elif value is not None and value is not False:
            parts.append(Markup(f'{key}="{html.escape(str(value), quote=True)}"'))
    opening = Markup("<{}>").format(Markup(" ").join(parts))
    return opening if tag in _VOID else opening + _join(children) + Markup("</{}>").format(tag)


def data_script(value: Any) -> Markup:
    """Return `value` as JSON that a script of the page reads, safe inside HTML."""
    text = htmlsafe_json_dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: no U+2028
    return Markup('<script type="application/json">{}</script>').format(text)


def table(
    headers: Iterable[Child], rows: Iterable[Sequence[Child]], groups: Sequence[tuple[str, int]] = ()
) -> Markup:
    """Return a table whose first column names the row; `groups` (text, columns) stand over the headers."""
    return fill("table.html", headers=headers, rows=rows, groups=groups)


def _join(children: Iterable[Any]) -> Markup:
    return Markup("").join(map(_rendered, children))


def _rendered(child: Any) -> Markup:
    if child is None:
        return Markup("")
    return escape(child) if isinstance(child, str | int | float) else _join(child)
