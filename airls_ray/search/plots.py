"""The picture of a search: accuracy against each axis of the ledger, with bootstrap bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = {
    "policy_tokens": "policy tokens a problem",
    "generations": "generations a problem",
    "prm_tokens": "scorer tokens a problem",
    "prefill_tokens": "prefill tokens a problem (no cache)",
    "flops": "floating-point operations a problem",
    "kv_tokens": "unique KV tokens a problem",
}
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9",
    "#e69f00", "#332288", "#882255", "#000000", "#999933",
)  # fmt: skip
_MARKERS = "osD^vP*X<>"


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw rows of `summarise` as PNG: a panel an axis, a line an algorithm, a point a budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharey=True)
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    for panel, (axis, label) in zip(panels.flat, _PANELS.items(), strict=True):
        for at, name in enumerate(names):
            points = sorted((row for row in rows if row["algorithm"] == name), key=lambda row: row[axis])
            x = [max(row[axis], 1.0) for row in points]
            colour = _COLOURS[at % len(_COLOURS)]
            panel.plot(
                x, [row["accuracy"] for row in points], color=colour, label=name, linewidth=1.8,
                marker=_MARKERS[at % len(_MARKERS)], markersize=5,
            )  # fmt: skip
            panel.fill_between(
                x,
                [row["low"] for row in points],
                [row["high"] for row in points],
                color=colour,
                alpha=0.10,
                linewidth=0,
            )
        _scale(panel, [max(row[axis], 1.0) for row in rows])
        panel.set_xlabel(label)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy (band: 95 %)")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _scale(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis, unless its values lie so near each other that the labels of its ticks would lie
    on one another."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if max(values) >= 10.0 * min(values):
        panel.set_xscale("log")
        return
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def draw_abstention(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw rows of `summarise` as PNG: accuracy of the answers that are given against their share, a panel a
    measure of confidence, a line an algorithm at its largest budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    largest = {row["algorithm"]: row for row in sorted(rows, key=lambda row: row["budget"])}
    for panel, (measure, label) in zip(panels, _CONFIDENCES.items(), strict=True):
        for at, (name, row) in enumerate(largest.items()):
            found = row["abstention"][measure]
            panel.plot(
                [float(share) for share in found["accuracy"]], list(found["accuracy"].values()),
                color=_COLOURS[at % len(_COLOURS)], marker=_MARKERS[at % len(_MARKERS)], markersize=5,
                linewidth=1.8, label=f"{name}, N = {row['budget']}",
            )  # fmt: skip
        panel.set_xlabel(f"share of problems answered, by {label}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy of these answers")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


_CONFIDENCES = {"vote_share": "share of the votes", "score": "score of the chosen response"}
