"""What `methods.py` makes of its records: means over seeds with intervals, Markdown, the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import common
from method_variants import ABLATIONS, METHODS, PUZZLES

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress

Record = Mapping[str, Any]

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
METRICS = (
    "step_auroc",
    "step_auroc_within",
    "trace_auroc",
    "trace_auroc_within",
    "first_error_f1",
    "length_correlation",
)
REACH = {"arithmetic": 0.60, "countdown": 0.50, **dict.fromkeys(PUZZLES, 0.60)}
"""Outcome on fresh problems (mean of `WINDOW` iterations) whose rollouts and seconds are reported."""
WINDOW = 5
LABELS = {"base": "base policy", "sft": "supervised on the same traces"}
LABELS |= {one.name: one.label for one in (*METHODS, *ABLATIONS)}
COLOURS = {"base": "#777777", "sft": "#009e73", "grpo": "#d55e00", "rloo": "#e69f00"}
COLOURS |= {"prime": "#cc79a7", "pure": "#f0e442", "airl_s": "#0072b2", "repirl": "#882255"}
COLOURS |= {
    one.name: {"airl_s": "#7fb8d8", "repirl": "#c08fa8", "prime": "#d8b98a"}[one.of or ""]
    for one in ABLATIONS
}
"""Of a method in every panel; ablations have a pale one of theirs."""


# ---------------------------------------------------------------------------------- statistics
def encode_counts(samples: Path) -> str:
    """Right samples of each test problem, a base-36 digit each, from a run's `samples/NAME.parquet`."""
    import pyarrow.parquet as pq

    table = pq.read_table(samples, columns=["group", "outcome"])
    return counts_text(table["group"].to_pylist(), table["outcome"].to_pylist())


def counts_text(groups: Sequence[int], outcomes: Sequence[float]) -> str:
    """Right samples of each group, in the groups' order."""
    counts: dict[int, int] = {}
    for group, outcome in zip(groups, outcomes, strict=True):
        counts[group] = counts.get(group, 0) + (outcome > 0.5)
    return "".join(DIGITS[counts[group]] for group in sorted(counts))


def pass_at(text: str, k: int, samples: int = 16) -> list[float]:
    """Of each problem the chance that any of `k` of its samples is right, unbiased."""
    import numpy as np

    from airls_ray.evaluation.ranking import best_of_k

    outcomes = np.tri(samples + 1, samples, -1)  # as many ones in a row as its number
    by_count = best_of_k(outcomes, outcomes, k)
    return [float(by_count[DIGITS.index(digit)]) for digit in text]


def interval(texts: Sequence[str], samples: int = 16, k: int = 1) -> tuple[float, float]:
    """95 % interval of pass@k (the sampled accuracy) by resampling runs, and problems within them.

    Two levels, since the problems of a run are independent but the run itself is one draw.
    """
    import numpy as np

    runs = [np.array(pass_at(text, k, samples)) for text in texts]
    rng = np.random.default_rng(0)
    means = [
        fmean(
            float(runs[pick][rng.integers(0, len(runs[pick]), len(runs[pick]))].mean())
            for pick in rng.integers(0, len(runs), len(runs))
        )
        for _ in range(1000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def reached(record: Record, target: float) -> tuple[int, float] | None:
    """Rollouts and seconds until the smoothed outcome on fresh problems is at `target`; None if never."""
    curve, seconds = record["outcome"], record["seconds_by_iteration"]
    for end in range(WINDOW, len(curve) + 1):
        if fmean(curve[end - WINDOW : end]) >= target:
            return round(record["rollouts"] * end / len(curve)), sum(seconds[:end])
    return None


def summarise(records: Sequence[Record], task: str) -> dict[str, dict[str, Any]]:
    """Figures by variant, means over its seeds; `base` comes from all runs together."""
    found = [record for record in records if record["task"] == task]
    table: dict[str, dict[str, Any]] = {}
    if trained := [record for record in found if "base" in record["accuracy"]]:
        table["base"] = {
            "seeds": len({record["seed"] for record in trained}),
            **{way: fmean(r["accuracy"]["base"][way] for r in trained) for way in ("sampled", "greedy")},
        }
        if known := [r["search_base"]["oracle"] for r in trained if "oracle" in r.get("search_base", {})]:
            table["base"]["pass_16"] = fmean(known)
    for name in LABELS:
        if runs := [record for record in found if record["variant"] == name]:
            table[name] = _row(runs, task)
    return table


def _row(runs: Sequence[Record], task: str) -> dict[str, Any]:
    low, high = interval([run["right_of_16"] for run in runs])
    any_low, any_high = interval([run["right_of_16"] for run in runs], k=16)
    row: dict[str, Any] = {
        "seeds": len(runs),
        **{f"pass_{k}": fmean(fmean(pass_at(run["right_of_16"], k)) for run in runs) for k in (4, 16)},
        "pass_16_low": any_low,
        "pass_16_high": any_high,
        "sampled": fmean(run["accuracy"]["trained"]["sampled"] for run in runs),
        "sampled_low": low,
        "sampled_high": high,
        "greedy": fmean(run["accuracy"]["trained"]["greedy"] for run in runs),
        "rollouts": runs[0]["rollouts"],
        "warnings": sorted({kind for run in runs for kind in run.get("warnings", ())}),
    }
    if all("outcome" in run for run in runs):
        hits = [reached(run, REACH[task]) for run in runs]
        row["reached"] = sum(hit is not None for hit in hits)
        if row["reached"]:
            row["rollouts_to_reach"] = fmean(hit[0] for hit in hits if hit)
            row["seconds_to_reach"] = fmean(hit[1] for hit in hits if hit)
    for side in ("", "_base"):
        if all(f"prm{side}" in run for run in runs):
            for scorer in (f"prm{side}", f"policy_log_prob{side}"):
                for metric in METRICS:
                    values = [run[scorer].get(metric) for run in runs]
                    # Some older records hold NaN for the length correlation: the mean is of the others.
                    if defined := [value for value in values if isinstance(value, float) and value == value]:
                        row[f"{scorer}/{metric}"] = fmean(defined)
            for way in ("best_of_n", "policy_log_prob", "majority"):
                row[f"{way}_16{side}"] = fmean(run[f"search{side}"][way] for run in runs)
    if labels := [run["labels"] for run in runs if "labels" in run]:
        row["labels"] = labels[0]
    return row


# ------------------------------------------------------------------------------------- writing
def write(
    records: Mapping[str, Record], iterations: int | None, progress: Progress, *, show: bool
) -> dict[str, Any]:
    """Write methods.json, methods.md and methods.png of the finished runs; print the tables if `show`."""
    tables = {task: summarise(list(records.values()), task) for task in REACH}
    figures = {"iterations": iterations, "tasks": tables, "runs": len(records)}
    path = common.write_result("methods", figures)
    text = "\n\n".join(markdown(task, table) for task, table in tables.items() if table)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    draw(path.with_suffix(".png"), tables)
    if show:
        for task, table in tables.items():
            if table:
                progress.table(f"{task}: policies", policy_rows(table, task), policy_columns(task))
                progress.table(f"{task}: PRMs on the base policy's samples", prm_rows(table), PRM_COLUMNS)
        progress.say(f"written to {path}, methods.md and methods.png")
    return figures


def policy_columns(task: str) -> tuple[str, ...]:
    """Headings of the policies' table."""
    return (
        "",
        "seeds",
        "sampled (95 % interval)",
        "greedy",
        "any of 4",
        "any of 16 (95 % interval)",
        f"rollouts to {REACH[task]:g}",
        f"seconds to {REACH[task]:g}",
        "warnings",
    )


def policy_rows(table: Mapping[str, Mapping[str, Any]], task: str) -> list[tuple[str, ...]]:
    """A row a policy."""
    rows: list[tuple[str, ...]] = []
    for name, row in table.items():
        hits = f"{row['reached']} of {row['seeds']}: " if row.get("reached") else ""
        rows.append(
            (
                LABELS[name],
                str(row["seeds"]),
                f"{row['sampled']:.3f}{_between(row, 'sampled')}",
                f"{row['greedy']:.3f}",
                _number(row.get("pass_4")),
                _number(row.get("pass_16")) + _between(row, "pass_16"),
                f"{hits}{row['rollouts_to_reach']:,.0f}" if hits else "-",
                f"{row['seconds_to_reach']:.0f}" if hits else "-",
                ", ".join(row.get("warnings", [])) or "-",
            )
        )
    return rows


PRM_COLUMNS = (
    "",
    "step AUROC",
    "trace AUROC within problems",
    "first-error F1",
    "Best-of-16",
    "length correlation",
    "labelling cost",
)


def prm_rows(table: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row a PRM, all on samples of the same base policy; the control comes first."""
    scored = {name: row for name, row in table.items() if "best_of_n_16_base" in row}
    if not scored:
        return []
    control = max(scored.values(), key=lambda row: row["seeds"])  # it is measured along with every PRM
    rows: list[tuple[str, ...]] = [
        (
            "policy log-probability (control)",
            _number(control.get("policy_log_prob_base/step_auroc")),
            _number(control.get("policy_log_prob_base/trace_auroc_within")),
            _number(control.get("policy_log_prob_base/first_error_f1")),
            _number(control.get("policy_log_prob_16_base")),
            "",
            "none",
        ),
        ("majority of 16", "", "", "", _number(control.get("majority_16_base")), "", "none"),
    ]
    for name, row in scored.items():
        cost = "none"
        if labels := row.get("labels"):
            facts = labels.get("cost", labels)
            names = {"labelling_rollouts": "rollouts", "seconds": "seconds"}
            cost = ", ".join(f"{facts[key]:,.0f} {text}" for key, text in names.items() if key in facts)
        rows.append(
            (
                LABELS[name],
                _number(row.get("prm_base/step_auroc")),
                _number(row.get("prm_base/trace_auroc_within")),
                _number(row.get("prm_base/first_error_f1")),
                _number(row.get("best_of_n_16_base")),
                _number(row.get("prm_base/length_correlation")),
                cost,
            )
        )
    return rows


def markdown(task: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    """Both tables of a task."""
    parts = [f"### {task}: policies", as_table(policy_columns(task), policy_rows(table, task))]
    if rows := prm_rows(table):
        parts += [f"### {task}: PRMs on the base policy's samples", as_table(PRM_COLUMNS, rows)]
    return "\n\n".join(parts)


def as_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _between(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "" if low is None else f" ({low:.3f}-{high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def draw(path: Path, tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Sampled accuracy of every method with its interval, a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {task: table for task, table in tables.items() if table}
    if not shown:
        return
    columns = min(len(shown), 3)
    sizes = [len(table) for table in shown.values()]
    longest = [max(sizes[start : start + columns]) for start in range(0, len(sizes), columns)]
    heights = [0.9 + 0.34 * size for size in longest]
    figure = Figure(figsize=(5.2 * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    ).flat
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for at, (axes, (task, table)) in enumerate(zip(panels, shown.items(), strict=False)):
        names = list(table)[::-1]
        for place, name in enumerate(names):
            row = table[name]
            axes.barh(place, row["sampled"], 0.7, color=COLOURS[name])
            if "sampled_low" in row:
                axes.plot([row["sampled_low"], row["sampled_high"]], [place, place], "k-", linewidth=1.2)
        axes.set_ylim(len(names) - 0.4 - longest[at // columns], len(names) - 0.4)
        axes.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
        if "base" in table:
            axes.axvline(table["base"]["sampled"], color="#777777", linewidth=0.8, linestyle="--")
        axes.set(xlabel="sampled accuracy on test problems", title=task, xlim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
