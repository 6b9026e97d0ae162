"""What the comparisons of searches make of their figures: result file, Markdown, the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress

Row = Mapping[str, Any]
TARGETS = {"3 numbers": 0.97, "4 numbers": 0.80}
"""Of the best algorithm, by part of the benchmark."""
SCORERS = {
    "prm": "PRM of AIRL-S",
    "repirl": "PRM of rePIRL",
    "math_shepherd": "Math-Shepherd PRM",
    "step_truth": "PRM on true step labels",
    "policy_log_prob": "policy log-probability (control)",
    "oracle": "truth of the steps",
}
STYLES = {
    "prm": "-", "repirl": (0, (3, 1)), "math_shepherd": "--", "step_truth": (0, (5, 1, 1, 1)),
    "policy_log_prob": ":", "oracle": (0, (1, 3)),
}  # fmt: skip
MARKERS = {
    "prm": "o",
    "repirl": "D",
    "math_shepherd": "s",
    "step_truth": "^",
    "policy_log_prob": "x",
    "oracle": "*",
}
PICTURED = ("beam", "rebase", "mcts")
"""Algorithms of the panel that compares scorers."""
COLOURS = {
    "best_of_n": "#000000", "beam": "#0072b2", "lookahead": "#56b4e9", "dvts": "#332288",
    "early_rejection": "#999933", "rebase": "#d55e00", "ets": "#e69f00", "particle_filter": "#009e73",
    "particle_gibbs": "#882255", "mcts": "#cc79a7", "chunk_reset": "#44aa99",
    "adaptive_consistency": "#aa4499", "instance_adaptive": "#117733", "ab_mcts": "#661100",
}  # fmt: skip
COLUMNS = ("algorithm", "scorer", "N", "accuracy (95 %)", "any right", "policy tokens", "scorer tokens")


def write(name: str, figures: Mapping[str, Any], progress: Progress) -> Path:
    """Write NAME.json, .md and .png; print tables, verdicts and the cost. `figures`: by part."""
    path = common.write_result(name, dict(figures))
    texts = []
    for part, found in figures.items():
        title = f"{part}: {found['problems']} problems"
        rows = cells(found["rows"])
        progress.table(title, rows, COLUMNS)
        best = max(found.get("all_problems", found["rows"]), key=lambda row: row["accuracy"])
        said = [
            f"{part}: {best['accuracy']:.3f} by {best['algorithm']} at N = {best['budget']} on "
            f"{best['problems']} problems" + _verdict(part, best["accuracy"]),
            *compare_scorers(found),
            "minutes: " + ", ".join(f"{what} {s / 60:.1f}" for what, s in found["cost_seconds"].items()),
        ]
        for line in said:
            progress.say(line)
        texts += [
            f"### {title}",
            markdown(rows),
            curves_text(found["best_of_n"]),
            "\n".join(f"- {x}" for x in said),
        ]
    path.with_suffix(".md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    draw(path.with_suffix(".png"), figures)
    return path


def _verdict(part: str, accuracy: float) -> str:
    return f", {common.verdict(accuracy, TARGETS[part])}" if part in TARGETS else ""


def compare_scorers(found: Mapping[str, Any]) -> list[str]:
    """For each step search and width: is the PRM above control, majority and the Math-Shepherd PRM?

    Majority has the policy tokens of the search, read off its curve over N at the same width: the searches
    spend what N whole responses spend.
    """
    rows = {(row["algorithm"], row["scorer"], row["budget"]): row for row in found["rows"]}
    said = []
    for (name, scorer, budget), row in rows.items():
        control = rows.get((name, "policy_log_prob", budget))
        shepherd = rows.get((name, "math_shepherd", budget))
        if scorer != "prm" or name == "best_of_n" or control is None:
            continue
        majority = found["best_of_n"].get("majority", {}).get(str(budget), float("nan"))
        apart = "apart" if row["low"] > control["high"] else "not apart"
        said.append(
            f"{name}, N = {budget}: PRM {row['accuracy']:.3f}, control {control['accuracy']:.3f} (intervals "
            f"{apart}), majority {majority:.3f}"
            + (f", Math-Shepherd PRM {shepherd['accuracy']:.3f}" if shepherd else "")
        )
    return said


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's rows."""
    return [
        [
            row["algorithm"],
            SCORERS[row["scorer"]],
            str(row["budget"]),
            f"{row['accuracy']:.3f} ({row['low']:.3f}-{row['high']:.3f})",
            f"{row['oracle']:.3f}",
            f"{row['policy_tokens']:,.0f}",
            f"{row['prm_tokens']:,.0f}",
        ]
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def curves_text(curves: Mapping[str, Mapping[str, float]]) -> str:
    """Best-of-N and its bounds over N, from one run."""
    widths = list(next(iter(curves.values()), {}))
    lines = [["Best-of-N samples, chosen by", *widths], ["---"] * (len(widths) + 1)]
    lines += [[way, *(f"{curve[width]:.3f}" for width in widths)] for way, curve in curves.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(path: Path, figures: Mapping[str, Any]) -> None:
    """A row for each part; left: all algorithms with the PRM; right: scorers compared."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6 * len(figures)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(figures), 2, squeeze=False)
    for (part, found), (left, right) in zip(figures.items(), grid, strict=True):
        rows = found["rows"]
        for name, colour in COLOURS.items():
            line = [row for row in rows if row["algorithm"] == name and row["scorer"] == "prm"]
            curve(left, line, colour, "-", name)
        for name in PICTURED:
            for scorer, style in STYLES.items():
                line = [row for row in rows if row["algorithm"] == name and row["scorer"] == scorer]
                label = f"{name}, {SCORERS[scorer]}"
                curve(right, line, COLOURS[name], style, label, MARKERS[scorer])
        majority(right, found)
        finish(left, f"{part}: every search with the PRM of AIRL-S", 4)
        finish(right, f"{part}: the same search by each scorer", 2)
    figure.savefig(path, dpi=110)


def curve(panel: Any, rows: Sequence[Row], colour: str, style: Any, label: str, marker: str = "o") -> None:
    """A line with its band; nothing where there are no rows."""
    if not rows:
        return
    line = sorted(rows, key=lambda row: row["policy_tokens"])
    x = [row["policy_tokens"] for row in line]
    y = [row["accuracy"] for row in line]
    panel.plot(x, y, linestyle=style, color=colour, label=label, marker=marker, markersize=5)
    panel.fill_between(
        x, [row["low"] for row in line], [row["high"] for row in line], color=colour, alpha=0.08, linewidth=0
    )


def majority(panel: Any, found: Mapping[str, Any]) -> None:
    """The majority vote of whole responses, at the tokens that they cost."""
    whole = [row for row in found["rows"] if row["algorithm"] == "best_of_n" and row["scorer"] == "prm"]
    votes = found["best_of_n"].get("majority", {})
    points = [
        (row["policy_tokens"], votes[str(row["budget"])]) for row in whole if str(row["budget"]) in votes
    ]
    if points:
        x, y = zip(*sorted(points), strict=True)
        panel.plot(x, y, "-.", color="#555555", label="majority vote of whole responses", marker="x")


def finish(panel: Any, title: str, columns: int) -> None:
    """Axes and a legend that hides nothing."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panel.set_title(title)
    panel.set_ylabel("accuracy (band: 95 %)")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("policy tokens a problem")
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns)
