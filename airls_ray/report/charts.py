"""Charts as inline SVG: drawn by matplotlib, coloured by the page's CSS (light and dark), with the data
beside them for the pointer's read-out. Legends are HTML above the chart, so that none hides a line."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from airls_ray.report.endings import ending, label_endings, room_of
from airls_ray.report.glossary import meaning
from airls_ray.report.markup import data_script, element

COLOURS = 8
"""Colours 1 to 8 (Okabe and Ito, safe for colour-blind readers; 8 is that of text); 0 is grey. CSS: --c0 to
--c8."""

Dash = Literal["solid", "dashed", "dotted", "dashdot"]

# Colours that stand for CSS variables: matplotlib writes them, `_finish` replaces them.
_SERIES = [f"#a1b2{number:02x}" for number in range(COLOURS + 1)]
_TEXT, _GRID, _PAPER = "#a1b2f0", "#a1b2f1", "#a1b2f2"
_VARIABLES = {colour: f"var(--c{number})" for number, colour in enumerate(_SERIES)} | {
    _TEXT: "var(--muted)",
    _GRID: "var(--grid)",
    _PAPER: "var(--paper)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a run may be called a$b
    "font.family": "DejaVu Sans",  # wide: what fits with it fits with the page's font
    "font.size": 9.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _GRID,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
_SIZE, _WIDE_SIZE = (4.3, 2.5), (6.2, 2.9)  # inches; the page scales them to its columns
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.47, 0.12, 0.44, 0.22  # margins in inches, equal for all charts
_SHAPES = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼"}
_LINES: dict[Dash, str] = {"solid": "-", "dashed": "--", "dotted": ":", "dashdot": "-."}


@dataclass(frozen=True)
class Line:
    """A curve. A faint one (a single run, unsmoothed values) has no place in legend and read-out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dash: Dash = "solid"
    marker: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines (or, stacked, areas) over one axis. `key` is unique on the page."""

    key: str
    title: str
    lines: Sequence[Line]
    note: str = ""
    x_label: str = "iteration"
    levels: Sequence[tuple[str, float]] = ()
    """Named horizontal lines, such as chance."""
    shade: tuple[float, float] | None = None
    """First and last iteration of the PRM warm-up."""
    stacked: bool = False
    doubling: bool = False
    """The x axis is logarithmic, its ticks are the values of the first line."""
    y_range: tuple[float | None, float | None] = (None, None)
    wide: bool = False
    """For two columns instead of three."""


def render(chart: Chart) -> Markup:
    """Return the chart as an HTML figure: title, legend, SVG and its data."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": chart.key}):
        width, height = _WIDE_SIZE if chart.wide else _SIZE
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        inside = (width - _LEFT - _RIGHT - _room(chart)) / width, (height - _BOTTOM - _TOP) / height
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, *inside))
        _draw(axes, chart)
        if _room(chart):
            label_endings(axes, [(line.x, line.y, _SERIES[line.colour]) for line in _named(chart)])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = _finish(buffer.getvalue(), chart.title)
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", chart.title, title=meaning(chart.title)),
            element("p", chart.note) if chart.note else None,
        ),
        _legend(chart),
        element("div", svg, data_script(_readout(chart, axes)), class_="plot"),
        class_="chart",
    )


def _named(chart: Chart) -> list[Line]:
    return [line for line in chart.lines if not line.faint]


def _room(chart: Chart) -> float:
    """Inches on the right for the last values, 0 where they are in the legend alone."""
    return 0.0 if chart.stacked else room_of([line.y for line in _named(chart)])


def _draw(axes: Axes, chart: Chart) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    if chart.stacked:
        _draw_stack(axes, chart.lines)
    else:
        for line in chart.lines:
            _draw_line(axes, line)
    for _, level in chart.levels:
        axes.axhline(level, color=_SERIES[0], linewidth=1.6, linestyle=(0, (1, 1.6)), zorder=2.5)
    _draw_x_axis(axes, chart)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    low, high = chart.y_range
    axes.set_ylim(bottom=low, top=high)
    if axes.get_ylim()[1] - axes.get_ylim()[0] < 1e-9:
        axes.set_ylim(axes.get_ylim()[0] - 0.5, axes.get_ylim()[1] + 0.5)


def _draw_line(axes: Axes, line: Line) -> None:
    axes.plot(
        line.x,
        line.y,
        color=_SERIES[line.colour],
        linestyle=_LINES[line.dash],
        linewidth=0.9 if line.faint else 2.0,
        alpha=0.35 if line.faint else 1.0,
        marker=line.marker or ("o" if len(line.x) == 1 else ""),
        markersize=5.0,
        zorder=2.0 if line.faint else 3.0,
    )


def _draw_stack(axes: Axes, lines: Sequence[Line]) -> None:
    below = [0.0] * len(lines[0].x)
    for line in lines:
        above = [low + value for low, value in zip(below, line.y, strict=True)]
        axes.fill_between(
            line.x, below, above, color=_SERIES[line.colour], edgecolor=_PAPER, linewidth=0.4, step="mid"
        )
        below = above
    axes.set_ylim(bottom=0.0)


def _draw_x_axis(axes: Axes, chart: Chart) -> None:
    axes.set_xlabel(chart.x_label, labelpad=3)
    if chart.doubling:
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(chart.lines[0].x))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if chart.shade:
        first, last = chart.shade
        axes.axvspan(first - 0.5, last + 0.5, color=_SERIES[0], alpha=0.12, linewidth=0)
        axes.annotate(
            "PRM warm-up",
            (first, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            color=_TEXT,
            fontsize=8,
        )


def _tick(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{round(value, 10):g}"


def _finish(svg: str, title: str) -> Markup:
    """Make matplotlib's SVG fit the page: no prologue, no ids, no fixed size, CSS colours, our font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g\b[^>]*?) id="[^"]*"', r"\1", svg)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    svg = svg.replace("'DejaVu Sans'", "var(--font)").replace('"DejaVu Sans"', "var(--font)")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = element("title", title)
    return Markup(re.sub(r"^<svg ([^>]*)>", lambda match: f'<svg role="img" {match[1]}>{label}', svg))


def _legend(chart: Chart) -> Markup | None:
    entries = [(line.name, line.colour, line.dash, line.marker, ending(line.y)) for line in _named(chart)]
    entries += [(name, 0, "dotted", "", ending([level])) for name, level in chart.levels]
    if len(entries) < 2:
        return None
    items = []
    for name, colour, dash, marker, last in entries:
        kind = "area" if chart.stacked else dash
        shape = element("b", _SHAPES[marker]) if marker else None
        swatch = element("i", shape, class_=f"swatch {kind}", style=f"--c:var(--c{colour})")
        items.append(element("li", swatch, name, element("span", last, class_="last")))
    return element("ul", items, class_="legend")


def _readout(chart: Chart, axes: Axes) -> dict[str, Any]:
    """What the page's script needs: the plot's box in SVG units, the x range, the points."""
    width, height = (72 * inches for inches in (_WIDE_SIZE if chart.wide else _SIZE))
    left, bottom, inside_width, inside_height = axes.get_position().bounds
    top = 1 - bottom - inside_height
    return {
        "box": [left * width, top * height, inside_width * width, inside_height * height],
        "size": [width, height],
        "range": list(axes.get_xlim()),
        "log": chart.doubling,
        "x": chart.x_label,
        "lines": [
            {
                "name": line.name,
                "colour": line.colour,
                "points": [list(p) for p in zip(line.x, line.y, strict=True)],
            }
            for line in chart.lines
            if not line.faint
        ],
    }
