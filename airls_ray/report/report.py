"""The report of one run: `report.html` in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from airls_ray import files
from airls_ray.console.formatting import format_seconds
from airls_ray.report.browser import browser_intro, render_browser
from airls_ray.report.charts import Chart, render
from airls_ray.report.data import RunData, load_run, number
from airls_ray.report.examples import MOST_EXAMPLES, render_examples
from airls_ray.report.glossary import meaning, render_glossary
from airls_ray.report.markup import element, fill, table
from airls_ray.report.page import asset, page, section
from airls_ray.report.panels import (
    DETAILS,
    LEARNING,
    charts,
    other_charts,
    search_charts,
    search_rows,
    stage_seconds,
    time_charts,
)
from airls_ray.report.rollout_rows import BrowsedRollouts, read_rollouts
from airls_ray.report.style import SCRIPT
from airls_ray.report.trees import read_trees, render_trees, trees_intro
from airls_ray.runs.run_folder import RunFolder


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path; what the run lacks is left out.

    Raises:
        RunError: there is no run, or the disk is full.
        DataError: a file of the run is broken.
    """
    run = load_run(run_folder)
    rollouts, trees = read_rollouts(run), read_trees(run)
    document = page(
        f"{run.name} · airls-ray",
        header(run),
        section("Results", tables(run)),
        section("Warnings", _warnings(run), intro="Known failures that the run met, each said once."),
        section("Learning curves", grid(charts(run, LEARNING)), intro=_smoothing(run)),
        section("Search", grid(search_charts(run), wide=True), _search_table(run)),
        section("Search trees", render_trees(trees), intro=trees_intro(trees)),
        _rollouts(run, rollouts),
        section("Time", grid(time_charts(run), wide=True), _stage_table(run)),
        section("More about the PRM and the policy", grid(charts(run, DETAILS)), folded=True),
        section("All other metrics", grid(other_charts(run)), folded=True),
        section("Configuration", element("pre", run.config) if run.config else None, folded=True),
        section("Glossary", render_glossary(), folded=True),
        scripts=(SCRIPT, asset("browser.js")) if rollouts.rows or trees.searches else (SCRIPT,),
    )
    output = RunFolder(run_folder).report_file
    with files.FullDisk(run_folder, "the report", "free some space"):
        files.write_text(output, document)
    return output


def _rollouts(run: RunData, found: BrowsedRollouts) -> Markup | None:
    """The browser of all rollouts, or where they cannot be read the examples that the run picked."""
    if found.rows:
        return section("Rollouts", render_browser(found), intro=browser_intro(found))
    parts = []
    if found.problem:
        parts.append(f"The run's rollouts are tokens, and no tokenizer was found for them: {found.problem}.")
    if len(run.examples) > MOST_EXAMPLES:
        parts.append(f"The first {MOST_EXAMPLES} of {len(run.examples)} examples.")
    examples = render_examples(run.examples) if run.examples else None
    if found.problem and examples is None:
        return section("Rollouts", element("p", parts[0]))
    return section("Rollouts", examples, intro=" ".join(parts))


def grid(found: Sequence[Chart], wide: bool = False) -> Markup | None:
    """Return charts side by side, None if there are none."""
    if not found:
        return None
    return element("div", [render(chart) for chart in found], class_="charts wide" if wide else "charts")


def header(run: RunData) -> Markup:
    """Return the run's name, what it was made with, and its headline figures."""
    facts: list[tuple[str, str]] = []
    if run.method:
        facts.append(("method", run.method))
    seed = run.summary.get("seed")
    if seed is not None:
        facts.append(("seed", str(seed)))
    tokens = number(run.summary.get("tokens"))
    if tokens is not None:
        facts.append(("tokens", f"{tokens:,.0f}"))
    seconds = [(str(name), number(value)) for name, value in run.part("seconds").items()]
    times = [(name, format_seconds(value)) for name, value in seconds if value is not None]
    versions = [(str(name), str(value)) for name, value in run.part("versions").items()]
    stop = run.part("stopped_early").get("sentence")
    tiles = _tiles(run)
    return fill(
        "header.html", name=run.name, made=facts, stop=stop, times=times, versions=versions, tiles=tiles
    )


def _tiles(run: RunData) -> list[tuple[float, str]]:
    """Headline figures and what they are."""
    tiles = []
    base, trained = run.value("accuracy", "base", "sampled"), run.value("accuracy", "trained", "sampled")
    if trained is not None:
        gain = (
            f"sampled accuracy, {_points(trained, base)} over the base"
            if base is not None
            else "sampled accuracy"
        )
        tiles.append((trained, gain))
    step = run.value("prm", "step_auroc")
    if step is not None:
        control = run.value("policy_log_prob", "step_auroc")
        beside = f" (policy log-probability {control:.3f})" if control is not None else ""
        tiles.append((step, f"step AUROC of the PRM{beside}"))
    sizes = [int(size) for size in run.part("search").get("best_of_n", {}) if str(size).isdigit()]
    if sizes:
        best = run.value("search", "best_of_n", str(max(sizes)))
        vote = run.value("search", "majority", str(max(sizes)))
        beside = f" (majority {vote:.3f})" if vote is not None else ""
        if best is not None:
            tiles.append((best, f"best of {max(sizes)} by PRM{beside}"))
    return tiles


def tables(run: RunData) -> Markup | None:
    """Return the tables of accuracies and of PRM quality, None if the summary has neither."""
    accuracy = []
    for how in ("sampled", "greedy"):
        base, trained = run.value("accuracy", "base", how), run.value("accuracy", "trained", how)
        if base is not None or trained is not None:
            accuracy.append([how, _figure(base), _figure(trained), _points(trained, base)])
    quality = []
    for name, text in (
        ("step_auroc", "step AUROC"),
        ("step_auroc_within", "step AUROC within problems"),
        ("trace_auroc", "trace AUROC"),
        ("trace_auroc_within", "trace AUROC within problems"),
        ("first_error_f1", "first-error F1"),
    ):
        prm, control = run.value("prm", name), run.value("policy_log_prob", name)
        if prm is not None or control is not None:
            quality.append([text, _figure(prm), _figure(control), _difference(prm, control)])
    panels = []
    if accuracy:
        content = table(["", "base policy", "trained policy", "change"], accuracy)
        panels.append(element("div", _heading("Accuracy on test problems"), content, class_="panel"))
    if quality:
        content = table(["", "PRM", "policy log-probability", "difference"], quality)
        panels.append(element("div", _heading("Scores against the truth"), content, class_="panel"))
    return element("div", panels, class_="tables") if panels else None


def _heading(text: str) -> Markup:
    return element("h3", text, title=meaning(text))


def _warnings(run: RunData) -> Markup | None:
    if not run.warnings:
        return None
    lines = [
        element("li", element("b", f"iteration {line['iteration']}: "), line["sentence"])
        for line in run.warnings
    ]
    return element("ul", lines)


def _search_table(run: RunData) -> Markup | None:
    headers, groups, rows = search_rows(run)
    if not rows:
        return None
    cells = [[row[0], *(_figure(number(value)) for value in row[1:])] for row in rows]
    return element("details", element("summary", "The same as numbers"), table(headers, cells, groups))


def _stage_table(run: RunData) -> Markup | None:
    stages = stage_seconds(run)
    means = {name: sum(value for _, value in points) / len(points) for name, points in stages.items()}
    whole = sum(means.values())
    if not whole:
        return None
    rows = [[name, f"{mean:.3f}", f"{mean / whole:.0%}"] for name, mean in means.items()]
    rows.append(["iteration", f"{whole:.3f}", "100%"])
    content = table(["", "mean seconds per iteration", "share"], rows)
    return element("details", element("summary", "The same as numbers"), content)


def _smoothing(run: RunData) -> str:
    window = 2 * (len({line["iteration"] for line in run.metrics}) // 20) + 1
    return f"Thick: mean of {window} iterations. Thin: each iteration." if window > 1 else ""


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(first: float | None, second: float | None) -> str:
    return "-" if first is None or second is None else f"{first - second:+.3f}"


def _points(new: float | None, old: float | None) -> str:
    return "-" if new is None or old is None else f"{100 * (new - old):+.1f} points"
