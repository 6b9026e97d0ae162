"""The pictures of `evaluate-prm` and `aggregate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _RED, _GREY = "#0072b2", "#d55e00", "#6b7480"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = "osD^"
_FEWEST = 5
"""Places with fewer steps of a kind are left out: their mean says nothing."""


def draw_step_scores(path: Path, summary: Mapping[str, Any], title: str) -> None:
    """Draw a summary of `measure_step_rows` as PNG: reliability curve, mean score by place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, summary["reliability"], summary["labels"]["all"])
    _draw_drift(right, summary["drift"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.suptitle(title, parse_math=False)
    figure.savefig(path, dpi=130)


def _draw_reliability(axes: Axes, table: Mapping[str, Sequence[float]], figures: Mapping[str, float]) -> None:
    count = np.array(table["count"])
    widths = np.array(table["high"]) - np.array(table["low"])
    share = count / max(count.sum(), 1)
    axes.bar(table["low"], share, widths, align="edge", color=_GREY, alpha=0.25, label="share of steps")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="calibrated")
    there = count > 0
    score, right = np.array(table["score"])[there], np.array(table["right"])[there]
    axes.errorbar(
        score, right, yerr=_wilson(right, count[there]), color=_BLUE, marker="o", markersize=5,
        linewidth=1.8, capsize=2, label="share of right steps",
    )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("score of the step (10 bins)")
    axes.set_ylabel("share (bars: 95 %, steps taken as independent)")
    axes.set_title(
        f"Reliability: calibration error {figures['calibration_error']:.3f}, Brier {figures['brier']:.3f}",
        fontsize=10,
    )
    _legend_below(axes)


def _wilson(share: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances [2, n] of a share from the ends of its 95 % score interval (Wilson 1927): never empty."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(np.stack([share - centre + half, centre + half - share]), 0.0, None)


def _draw_drift(axes: Axes, table: Mapping[str, Sequence[float]]) -> None:
    for name, colour, marker in (("right", _BLUE, "o"), ("wrong", _RED, "s"), ("all", _GREY, "")):
        enough = np.array(table[f"{name}_count"]) >= _FEWEST
        place = np.arange(1, len(enough) + 1)
        mean = np.where(enough, np.array(table[f"{name}_mean"], dtype=float), np.nan)
        band = 1.96 * np.array(table[f"{name}_error"], dtype=float)
        label = "all steps" if name == "all" else f"{name} steps"
        axes.plot(
            place, mean, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label,
            linestyle="--" if name == "all" else "-",
        )  # fmt: skip
        if name != "all":
            axes.fill_between(place, mean - band, mean + band, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(f"place of the step (with {_FEWEST} or more of a kind)")
    axes.set_ylabel("mean score (band: 95 %)")
    axes.set_title("Score by place of the step", fontsize=10)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """Under the axis, where no data is."""
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def draw_sample_curves(
    path: Path, curves: Mapping[str, Mapping[int, Mapping[str, float]]], title: str
) -> None:
    """Draw curves of `summarise_values` as PNG: a panel an answer rule, a line an aggregation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    rules = [rule for rule in _RULES if any(way.startswith(rule + "/") for way in curves)]
    figure = Figure(figsize=(max(5.2 * len(rules), 6.5), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(rules), sharey=True, squeeze=False)[0]
    sizes = list(curves["mean"])
    for panel, rule in zip(panels, rules, strict=True):
        for way, (label, line) in _BOUNDS.items():
            if way in curves:
                values = [curves[way][k]["accuracy"] for k in sizes]
                panel.plot(sizes, values, color=_GREY, label=label, linestyle=line, linewidth=1.3)
        for at, way in enumerate(way for way in curves if way.startswith(rule + "/")):
            _draw_curve(panel, curves[way], way.removeprefix(rule + "/"), at)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("samples a problem, k")
        panel.set_title(_RULES[rule], fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (bars: 95 % over problems)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(title, parse_math=False)
    figure.savefig(path, dpi=130)


_RULES = {
    "best": "highest score",
    "weighted": "vote weighted by score",
    "hybrid": "majority, else highest score",
    "reward_frequency": "votes and mean scores",
}
_BOUNDS: dict[str, tuple[str, Any]] = {
    "oracle": ("any right (pass@k)", ":"),
    "majority": ("majority", "--"),
    "policy_log_prob": ("highest log-probability", "-."),
    "mean": ("one sample", (0, (1, 4))),
}


def _draw_curve(axes: Axes, curve: Mapping[int, Mapping[str, float]], label: str, at: int) -> None:
    """One line; its interval stands at the largest k alone, beside those of the others."""
    sizes = list(curve)
    values = [curve[k]["accuracy"] for k in sizes]
    colour = _COLOURS[at]
    axes.plot(sizes, values, color=colour, label=label, marker=_MARKERS[at], markersize=5, linewidth=1.8)
    last = curve[sizes[-1]]
    axes.plot(
        [sizes[-1] * 1.06 ** (at + 1)] * 2, [last["low"], last["high"]], color=colour, linewidth=2.2,
        solid_capstyle="butt", alpha=0.7,
    )  # fmt: skip
