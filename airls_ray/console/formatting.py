"""Numbers, durations and tables as text, the same on a terminal, in a log and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Cell = str | int | float | None
"""A table's cell; floats get three significant digits, None a dash."""


def phase_line(name: str, seconds: float) -> str:
    """Return the line of a finished phase, its seconds in a column of their own."""
    return f"{name:<36}  {seconds:7.1f} s"


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: `8 s`, `2:05 min`, `1:02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def format_number(value: Any) -> str:
    """Return a cell or field as text: three significant digits, thousands apart, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    number = float(value)
    if number != number:
        return "-"
    if isinf(number):
        return str(number)
    if number == int(number) or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}" if abs(number) < 0.001 else f"{number:#.3g}".rstrip(".")


def format_fields(fields: Mapping[str, Any]) -> str:
    """Return `name value` pairs on one line."""
    return "  ".join(f"{name} {format_number(value)}" for name, value in fields.items())


def format_count(done: int, total: int | None) -> str:
    """Return `done/total`, or what is known of it."""
    if total is None:
        return str(done) if done else ""
    return f"{done}/{total}"


def print_table(
    console: Console,
    title: str,
    rows: Sequence[Mapping[str, Cell] | Sequence[Cell]],
    columns: Sequence[str],
) -> None:
    """Print a table; columns are the keys of the first row, unless rows are sequences."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    first = rows[0] if rows else ()
    names = list(columns) or (list(first) if isinstance(first, Mapping) else [])
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    cells = [[row.get(name) for name in names] if isinstance(row, Mapping) else list(row) for row in rows]
    for position, name in enumerate(names):
        text = all(isinstance(row[position], str) for row in cells)
        table.add_column(Text(name), justify="left" if text else "right")
    for row in cells:
        table.add_row(*(Text(format_number(cell)) for cell in row))
    console.print(Text(title, style="bold"))  # not the table's own title, which wraps at its width
    console.print(table)
