"""Several runs on one page: learning curves over each other, seeds of a method averaged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from airls_ray import files
from airls_ray.console.formatting import format_seconds
from airls_ray.errors import RunError
from airls_ray.report.charts import COLOURS, Chart, Dash, Line
from airls_ray.report.data import RunData, load_run, mean_curve, rolling_mean
from airls_ray.report.markup import element, table
from airls_ray.report.page import page, section
from airls_ray.report.panels import DETAILS, LEARNING, Panel, without_outliers
from airls_ray.report.report import grid

_TIME = Panel("Time per iteration", {"time/iteration": "seconds"}, "Seconds", at_least=0.0, cut=True)
_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted")


def write_comparison(
    runs: Sequence[Path], output: Path, *, labels: Sequence[str] | None = None, title: str = "Comparison"
) -> Path:
    """Write one page with the learning curves of `runs` over each other, and return `output`.

    Args:
        runs: Run folders.
        output: The HTML file to write.
        labels: A name for each run; runs of the same name are drawn in one colour, with their mean.
            Default: the run's name without what looks like a seed (`airl_s-seed2` is `airl_s`).
        title: Heading of the page.

    Raises:
        RunError: there are no runs, one of them has no results, or the disk is full.
        ValueError: there are not as many labels as runs.
    """
    if not runs:
        raise RunError("there are no runs to compare: give at least one run folder")
    loaded = [load_run(path) for path in runs]
    if labels is not None and len(labels) != len(loaded):
        raise ValueError(f"{len(loaded)} runs need as many labels, but there are {len(labels)}")
    names = list(labels) if labels is not None else [without_seed(run.name) for run in loaded]
    groups: dict[str, list[RunData]] = {}
    for name, run in zip(names, loaded, strict=True):
        groups.setdefault(name, []).append(run)
    several = any(len(members) > 1 for members in groups.values())
    intro = "Thick: mean of the seeds, smoothed. Thin: each run." if several else ""
    document = page(
        f"{title} · airls-ray",
        element("header", element("h1", title)),
        section("Results", element("div", _table(groups), class_="panel")),
        section("Learning curves", grid(_charts(groups, [*LEARNING, _TIME])), intro=intro),
        section("More about the PRM and the policy", grid(_charts(groups, DETAILS)), folded=True),
    )
    with files.FullDisk(output.parent, "the comparison", "free some space"):
        files.write_text(output, document)
    return output


def without_seed(name: str) -> str:
    """Return a run's name without the seed at its end: `grpo-seed3` and `grpo_s3` are `grpo`."""
    return re.sub(r"[-_.](seed|s)[-_]?\d+$", "", name) or name


def _charts(groups: dict[str, list[RunData]], panels: Sequence[Panel]) -> list[Chart]:
    found = []
    for panel in panels:
        for metric, name in panel.metrics.items():
            lines = _lines(groups, metric)
            if lines:
                title = panel.title if len(panel.metrics) == 1 else f"{panel.title}: {name}"
                levels = panel.levels
                drawn = [line for line in lines if line.faint] or lines
                values = [value for line in drawn for value in line.y]
                top, cut = without_outliers(values) if panel.cut else (None, "")
                key, note, bounds = f"compare {metric}", panel.note + cut, (panel.at_least, top)
                found.append(Chart(key, title, lines, note, levels=levels, y_range=bounds))
    return found


def _lines(groups: dict[str, list[RunData]], metric: str) -> list[Line]:
    lines = []
    for position, (name, members) in enumerate(groups.items()):
        colour, dash = position % COLOURS + 1, _DASHES[position // COLOURS % len(_DASHES)]
        curves = [curve for curve in (run.curve(metric) for run in members) if curve[0]]
        x, y = mean_curve(curves)
        # Runs without a common iteration have no mean: each stands for itself then.
        lines += [Line(name, *curve, colour, faint=bool(x)) for curve in curves]
        if x:
            lines.append(Line(name, x, rolling_mean(y), colour, dash))
    return lines


def _table(groups: dict[str, list[RunData]]) -> str:
    columns: dict[str, tuple[str, ...]] = {
        "base, sampled": ("accuracy", "base", "sampled"),
        "trained, sampled": ("accuracy", "trained", "sampled"),
        "trained, greedy": ("accuracy", "trained", "greedy"),
        "step AUROC": ("prm", "step_auroc"),
        "trace AUROC": ("prm", "trace_auroc"),
        "trace AUROC within problems": ("prm", "trace_auroc_within"),
        "best of 16": ("search", "best_of_n", "16"),
        "majority of 16": ("search", "majority", "16"),
    }
    every = [run for members in groups.values() for run in members]
    used = {
        name: path for name, path in columns.items() if any(run.value(*path) is not None for run in every)
    }
    rows: list[list[str | int]] = []
    for name, members in groups.items():
        seconds = [value for run in members if (value := run.value("seconds", "train")) is not None]
        time = format_seconds(sum(seconds) / len(seconds)) if seconds else "-"
        rows.append([name, len(members), *(_spread(members, path) for path in used.values()), time])
    return table(["", "runs", *used, "training"], rows)


def _spread(members: Sequence[RunData], path: tuple[str, ...]) -> str:
    """Return the mean over the runs, with the standard deviation where there are several."""
    values = [value for run in members if (value := run.value(*path)) is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} ± {deviation:.3f}"
