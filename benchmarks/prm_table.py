"""What `prm_baselines.py` shows of a task: a row a PRM over its seeds, as Markdown and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from methods_table import as_table
from prm_samples import SAMPLES

Row = dict[str, Any]
AUROCS = ("auroc_within", "auroc", "step_auroc_within", "step_auroc")
COLUMNS = (
    "chosen by", "seeds", f"Best-of-{SAMPLES} (95 %)", "of each seed", "AUROC within problems", "over all",
    "of steps, within", "of steps, over all", "steps by",
)  # fmt: skip


def over_seeds(prm: Mapping[str, Any]) -> Row:
    """Means over the seeds of a PRM.

    All seeds choose among the same samples: the bounds are the means of theirs, so they are of the problems
    alone, and `by_seed` says what another training does.
    """
    tests = [run["test"] for run in prm["seeds"]]
    return {
        "label": prm["label"],
        "seeds": len(tests),
        **{name: fmean(one[name] for one in tests) for name in ("best_of_n", "low", "high", *AUROCS)},
        "by_seed": [one["best_of_n"] for one in tests],
        "aggregates": [run["aggregate"] for run in prm["seeds"]],
    }


def rows_of(found: Mapping[str, Any]) -> list[Row]:
    """One sample, the control, each PRM by falling Best-of-N, and any right."""
    controls = found["controls"]
    prms = sorted((over_seeds(prm) for prm in found["prms"].values()), key=lambda row: -row["best_of_n"])
    return [
        {"label": "one sample", **controls["one_sample"]},
        {"label": "policy log-probability (control)", **controls["log_prob"]},
        *prms,
        {"label": "any right", **controls["any_right"]},
    ]


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    bounds = f" ({row['low']:.3f}-{row['high']:.3f})" if "low" in row else ""
    ways = Counter(row.get("aggregates", ())).most_common()
    return [
        row["label"],
        str(row.get("seeds", "")),
        f"{row['best_of_n']:.3f}{bounds}",
        ", ".join(f"{value:.3f}" for value in row.get("by_seed", ())),
        *(f"{row[name]:.3f}" if name in row else "" for name in AUROCS),
        ", ".join(name for name, _ in ways),
    ]


def write(path: Path, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """The tables of all tasks as Markdown and as a picture beside `path`."""
    texts = []
    for task, found in tasks.items():
        texts += [f"### {task}", as_table(COLUMNS, [cells(row) for row in rows_of(found)])]
    path.with_suffix(".md").write_text("\n\n".join(texts) + "\n")
    draw(path.with_suffix(".png"), {task: rows_of(found) for task, found in tasks.items()})


def draw(path: Path, tasks: Mapping[str, Sequence[Row]]) -> None:
    """Best-of-N of each PRM with its interval and seeds, a panel a task; lines where the controls are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # One order for all, that of the task with the most of them, so that a PRM is found again.
    order = [row["label"] for row in max(tasks.values(), key=len) if "seeds" in row][::-1]
    figure = Figure(figsize=(5.0 + 3.2 * len(tasks), 1.6 + 0.3 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, (task, rows) in zip(panels, tasks.items(), strict=True):
        for row in rows:
            if "seeds" not in row or row["label"] not in order:
                continue
            at = order.index(row["label"])
            axes.plot([row["low"], row["high"]], [at, at], color="#0072b2", linewidth=2)
            axes.plot(row["by_seed"], [at] * len(row["by_seed"]), "|", color="#0072b2", markersize=9)
            axes.plot(row["best_of_n"], at, "o", color="#0072b2")
        for row, style in zip((rows[0], rows[1], rows[-1]), ("dotted", "dashed", "solid"), strict=True):
            axes.axvline(row["best_of_n"], color="#777777", linestyle=style, label=row["label"], linewidth=1)
        axes.set_yticks(range(len(order)), order)
        axes.set(title=task, xlabel=f"right choice among {SAMPLES}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)
