"""What `airls_vs_grpo.py` makes of its runs: statistics over seeds, targets and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Curve = dict[int, float]
"""A metric by iteration."""

SIZE = "16"
COLOURS = {"airl_s": "#0072b2", "grpo": "#d55e00", "supervised": "#009e73", "base": "#777777"}
LABELS = {"airl_s": "AIRL-S", "grpo": "GRPO (outcomes alone)", "supervised": "supervised", "base": "base"}


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, range and sample standard deviation (0 of a single seed), with the values by seed."""
    return {
        "mean": fmean(values),
        "min": min(values),
        "max": max(values),
        "std": stdev(values) if len(values) > 1 else 0.0,
        "seeds": list(values),
    }


def best_variant(sampled: Mapping[str, Sequence[float]]) -> str:
    """Return the variant with the best mean accuracy (lists over the seeds).

    Chosen on the test problems: in favour of what AIRL-S is compared with.
    """
    return max(sampled, key=lambda name: fmean(sampled[name]))


def accuracies(
    airl: Sequence[Mapping[str, Any]],
    grpo: Sequence[Mapping[str, Any]],
    supervised: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Accuracies by policy and way of answering, over the seeds."""
    table: dict[str, dict[str, Any]] = {}
    for name, way in (("sampled", "sampled"), ("greedy", "greedy")):
        table[name] = {
            "base": over_seeds([run["accuracy"]["base"][way] for run in airl]),
            "airl_s": over_seeds([run["accuracy"]["trained"][way] for run in airl]),
            "grpo": over_seeds([run["accuracy"]["trained"][way] for run in grpo]),
            "supervised": over_seeds([run["accuracy"][way] for run in supervised]),
        }
    for name in ("majority", "policy_log_prob", "best_of_n", "weighted", "oracle"):
        sides = {
            "base": [run["search_base"] for run in airl],
            "airl_s": [run["search"] for run in airl],
            "grpo": [run["search"] for run in grpo],
            "supervised": [run["search"] for run in supervised],
        }
        table[f"{name}_{SIZE}"] = {
            side: over_seeds([search[name][SIZE] for search in searches])
            for side, searches in sides.items()
            if all(name in search for search in searches)
        }
    return table


def last_outcomes(curves: Sequence[Curve], iterations: int = 10) -> dict[str, Any]:
    """Mean outcome of each run's last iterations: more problems than the test set has, met only once."""
    return over_seeds([fmean(curve[at] for at in sorted(curve)[-iterations:]) for curve in curves])


def prm_figures(airl: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """AUROC of the PRM and of the policy's log-probability, on both policies' samples."""
    return {
        key: {
            metric: over_seeds([run[key][metric] for run in airl]) for metric in ("step_auroc", "trace_auroc")
        }
        for key in ("prm", "policy_log_prob", "prm_base", "policy_log_prob_base")
    }


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """First minus second, seed by seed."""
    return over_seeds([a - b for a, b in zip(first["seeds"], second["seeds"], strict=True)])


def targets(table: Mapping[str, Mapping[str, Any]], prm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what must be reached beside what was: {name, target, reached, met}."""
    sampled = table["sampled"]
    by_prm, majority, by_policy = (
        table[f"{name}_{SIZE}"]["airl_s"] for name in ("best_of_n", "majority", "policy_log_prob")
    )
    base = sampled["base"]
    checks = [
        ("base, sampled (lowest seed)", ">= 0.25", base["min"], base["min"] >= 0.25),
        ("base, sampled (highest seed)", "<= 0.60", base["max"], base["max"] <= 0.60),
        _difference("AIRL-S - base, sampled", sampled["airl_s"], base, 0.15),
        _difference("AIRL-S - GRPO, sampled", sampled["airl_s"], sampled["grpo"], 0.05),
        (
            "PRM step AUROC",
            ">= 0.95",
            prm["prm"]["step_auroc"]["mean"],
            prm["prm"]["step_auroc"]["mean"] >= 0.95,
        ),
        _difference(
            "PRM - policy log-prob, step AUROC",
            prm["prm"]["step_auroc"],
            prm["policy_log_prob"]["step_auroc"],
            0.0,
        ),
        _difference(f"best of {SIZE} by PRM - majority", by_prm, majority, 0.0),
        _difference(f"best of {SIZE} by PRM - by policy log-prob", by_prm, by_policy, 0.0),
    ]
    return [
        {"name": name, "target": target, "reached": reached, "met": met}
        for name, target, reached, met in checks
    ]


def _difference(
    name: str, first: Mapping[str, Any], second: Mapping[str, Any], target: float
) -> tuple[str, str, float, bool]:
    reached = differences(first, second)["mean"]
    if target == 0.0:
        return name, "> 0", reached, reached > 0.0
    return name, f">= {target:g}", reached, reached >= target


def band(curves: Sequence[Curve], window: int = 5) -> tuple[list[int], list[float], list[float], list[float]]:
    """Return iterations, mean, lowest and highest of smoothed curves, where all of them have a value.

    Each point is a mean over the last `window` iterations (fewer at the start).
    """
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    smooth = []
    for curve in curves:
        values = [curve[at] for at in shared]
        smooth.append([fmean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))])
    columns = list(zip(*smooth, strict=True))
    return shared, [fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]


def draw(
    path: Path, curves: Mapping[str, Sequence[Curve]], table: Mapping[str, Mapping[str, Any]], warmup: int
) -> None:
    """Draw the learning curves and the final accuracies; bands and whiskers span the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for name, runs in curves.items():
        x, mean, low, high = band(runs)
        left.plot(x, mean, color=COLOURS[name], label=LABELS[name], linewidth=2)
        left.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
    left.axvspan(0, warmup, color="#777777", alpha=0.1, linewidth=0)
    left.text(warmup / 2, 1.0, "PRM warm-up", transform=left.get_xaxis_transform(), ha="center", va="bottom")
    left.set(xlabel="iteration (equal rollouts)", ylabel="outcome on fresh problems")
    left.legend(frameon=False, loc="lower right")
    sides = [side for side in LABELS if side in table["sampled"]][::-1]
    for way, shift in (("sampled", -0.2), ("greedy", 0.2)):
        for place, side in enumerate(sides):
            entry = table[way][side]
            right.bar(
                place + shift,
                entry["mean"],
                0.38,
                color=COLOURS[side],
                alpha=1.0 if way == "sampled" else 0.5,
            )
            right.plot([place + shift] * len(entry["seeds"]), entry["seeds"], "k.", markersize=4)
    right.set_xticks(range(len(sides)), [LABELS[side].partition(" (")[0] for side in sides])
    right.set(ylabel="accuracy on test problems", title="sampled (left bars), greedy (right bars)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=150)
