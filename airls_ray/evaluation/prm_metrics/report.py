"""What `evaluate-prm` and `aggregate` print and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.console.formatting import Cell
from airls_ray.data.step_files import StepRow
from airls_ray.evaluation.prm_metrics.plots import draw_sample_curves, draw_step_scores

SCORED_STEPS = pa.schema(
    [
        ("subset", pa.string()),
        ("problem_id", pa.string()),
        ("problem", pa.string()),
        ("steps", pa.list_(pa.string())),
        ("labels", pa.list_(pa.bool_())),
        ("classification", pa.string()),
        ("pair", pa.string()),
        ("correct", pa.float64()),
        ("answer", pa.string()),
        ("scores", pa.list_(pa.float64())),
    ],
    metadata={b"airls_ray.schema": b"scored_steps", b"airls_ray.version": b"1"},
)
"""One row a solution, in the project's own form of labelled steps: `evaluate-prm` reads it again, and
`aggregate` where `correct` is known."""


@dataclass(frozen=True)
class Table:
    """A table to print."""

    title: str
    rows: list[list[Cell]]
    columns: list[str]


def write_step_results(
    output: Path, rows: Sequence[StepRow], scores: Sequence[Sequence[float]], summary: Mapping[str, Any]
) -> None:
    """Write summary.json, scores.parquet (schema SCORED_STEPS) and steps.png, each whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        [
            {
                "subset": row.subset,
                "problem_id": row.problem_id,
                "problem": row.problem,
                "steps": row.steps,
                "labels": row.labels,
                "classification": row.classification,
                "pair": row.pair,
                "correct": row.outcome,
                "answer": row.answer,
                "scores": values,
            }
            for row, values in zip(rows, scores, strict=True)
        ],
        schema=SCORED_STEPS,
    )
    with files.replacing(output / "scores.parquet") as temporary:
        pq.write_table(table, temporary)
    files.write_text(output / "summary.json", files.to_json(summary, indent=2) + "\n")
    name = Path(summary["prm"]).name if summary["prm"] else "scores of the file"
    title = f"{name}: {summary['rows']} solutions, {summary['steps']} steps"
    with files.replacing(output / "steps.png") as temporary:
        draw_step_scores(temporary, summary, title)


def write_sample_results(output: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json and curves.png, each whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    files.write_text(output / "summary.json", files.to_json(summary, indent=2) + "\n")
    title = f"{summary['problems']} problems, {summary['samples']} samples each"
    with files.replacing(output / "curves.png") as temporary:
        draw_sample_curves(temporary, summary["curves"], title)


def step_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a summary of `measure_step_rows`."""
    tables = [_label_table(summary["labels"])]
    if "first_error" in summary:
        tables.append(_first_error_table(summary["first_error"]))
    if "prmbench" in summary:
        tables.append(_prmbench_table(summary["prmbench"]))
    tables.append(_trace_table(summary))
    if "partial_rank_correlation" in summary:
        tables.append(_partial_table(summary["partial_rank_correlation"]))
    if "probes" in summary:
        tables.append(_probe_table(summary["probes"]))
    return tables


def sample_table(curves: Mapping[str, Mapping[int, Mapping[str, float]]], problems: int) -> Table:
    """Return accuracy by way of choosing and k; the interval stands at the largest k."""
    sizes = list(next(iter(curves.values())))
    rows: list[list[Cell]] = [
        [
            _WAYS.get(way.partition("/")[0], way),
            way.partition("/")[2] or "-",
            *(f"{curve[k]['accuracy']:.3f}" for k in sizes),
            _range(curve[sizes[-1]]),
        ]
        for way, curve in curves.items()
    ]
    columns = ["answer", "step scores", *(f"k = {k}" for k in sizes), f"95 % at k = {sizes[-1]}"]
    return Table(f"Accuracy on {problems} problems, by samples of each", rows, columns)


def abstention_table(abstention: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return accuracy where the most confident answers alone are given, by way of choosing."""
    rows: list[list[Cell]] = [
        [
            _WAYS.get(way.partition("/")[0], way),
            way.partition("/")[2] or "-",
            *(f"{found['accuracy'][share]:.3f}" for share in _SHARES),
            f"{found['aurc']:.3f}",
        ]
        for way, found in abstention.items()
    ]
    columns = ["answer", "step scores", *(f"{float(share):.0%}" for share in _SHARES), "AURC"]
    return Table("Accuracy where the surest problems alone are answered", rows, columns)


_SHARES = ("0.1", "0.3", "0.5", "0.7", "0.9", "1.0")
"""Shares of the problems that a table has room for."""

_WAYS = {
    "mean": "one sample",
    "oracle": "any right (pass@k)",
    "majority": "majority",
    "policy_log_prob": "highest log-probability",
    "best": "highest score",
    "weighted": "weighted vote",
    "hybrid": "majority, else highest score",
    "reward_frequency": "votes and mean scores",
}


def _label_table(labels: Mapping[str, Any]) -> Table:
    parts = {"all": labels["all"], **(labels["subsets"] if len(labels["subsets"]) > 1 else {})}
    names = (
        "steps",
        "right",
        "auroc",
        "auroc_within",
        "brier",
        "calibration_error",
        "mean_score_right",
        "mean_score_wrong",
    )
    columns = [
        "subset",
        "steps",
        "right",
        "AUROC",
        "within problems",
        "Brier",
        "ECE",
        "mean of right",
        "mean of wrong",
    ]
    rows: list[list[Cell]] = [[name, *(one[key] for key in names)] for name, one in parts.items()]
    return Table("Scores against the labels of steps (ECE: expected calibration error)", rows, columns)


def _first_error_table(measured: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            one["rows"],
            one["accuracy_wrong"],
            one["accuracy_right"],
            _with_range(one, "f1"),
            _with_range(one["tuned"], "f1"),
            ", ".join(f"{value:.3g}" for value in one["tuned"]["thresholds"]),
        ]
        for name, one in measured["subsets"].items()
    ]
    if len(rows) > 1:
        mean = measured["mean"]
        rows.append(
            ["mean", None, None, None, _with_range(mean, "f1"), _with_range(mean["tuned"], "f1"), "-"]
        )
    columns = [
        "subset", "solutions", "found of wrong", "left of right", f"F1 at {measured['threshold']:g} (95 %)",
        "F1 tuned elsewhere (95 %)", "thresholds",
    ]  # fmt: skip
    return Table("First wrong step, as ProcessBench measures it", rows, columns)


def _prmbench_table(measured: Mapping[str, Any]) -> Table:
    names = ("f1", "negative_f1", "accuracy", "accuracy_right", "accuracy_wrong", "first_error_accuracy",
             "similarity")  # fmt: skip
    parts = {"overall": measured["overall"], **measured["kinds"]}
    rows: list[list[Cell]] = [
        [name, one["rows"], _with_range(one, "prm_score"), *(one[key] for key in names)]
        for name, one in parts.items()
    ]
    rows += [
        [f"({dimension})", None, f"{value:.3f}", *(None for _ in names)]
        for dimension, value in measured["dimensions"].items()
    ]
    columns = ["kind of error", "solutions", "PRM-Score (95 %)", "F1", "negative F1", "accuracy", "of right",
               "of wrong", "of first wrong", "similarity"]  # fmt: skip
    title = f"Every step of changed solutions, as PRMBench measures it (threshold {measured['threshold']:g})"
    return Table(title, rows, columns)


def _trace_table(summary: Mapping[str, Any]) -> Table:
    over_all, within = summary.get("trace_auroc", {}), summary.get("trace_auroc_within", {})
    rows: list[list[Cell]] = [
        [how, value, over_all.get(how), within.get(how)]
        for how, value in summary["length_correlation"].items()
    ]
    title = f"Scores of solutions; scores of right steps drift by {summary['drift_slope']:+.3g} a place"
    if isfinite(summary["lowest_at_last"]):
        title += f", {summary['lowest_at_last']:.0%} of the solutions have their lowest at the last step"
    flawed = summary.get("flawed_but_right", {"rows": 0})
    if flawed["rows"]:
        title += f"; of {flawed['rows']} right answers by a wrong step {flawed['found']:.0%} are found"
    return Table(
        title,
        rows,
        ["step scores", "correlation with the number of steps", "AUROC of the outcome", "within problems"],
    )


def _partial_table(measured: Mapping[int, Mapping[str, float]]) -> Table:
    rows: list[list[Cell]] = [
        [tokens, one["steps"], one["tau"], one["tau_within"]] for tokens, one in measured.items()
    ]
    columns = ["tokens", "steps that are longer", "tau", "tau at one place of one problem"]
    title = "Scores of steps cut after some tokens against those of the whole steps (Kendall's tau-b)"
    return Table(title, rows, columns)


def _probe_table(measured: Mapping[str, Any]) -> Table:
    parts = {**{repr(probe): one for probe, one in measured["responses"].items()}, "mean": measured["mean"]}
    rows: list[list[Cell]] = [
        [name, one["false_positives"], one["mean_score"]] for name, one in parts.items()
    ]
    rows.append(["worst", measured["worst"], None])
    rows.append(["any of them", measured["any"], None])
    title = (
        f"Responses without content to {measured['problems']} problems: how often they are called right "
        f"(threshold {measured['threshold']:g})"
    )
    return Table(title, rows, ["response", "false positives", "mean score"])


def _with_range(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.3f} ({_range(figures)})" if figures[name] == figures[name] else "-"


def _range(figures: Mapping[str, float]) -> str:
    return f"{figures['low']:.3f}-{figures['high']:.3f}"
