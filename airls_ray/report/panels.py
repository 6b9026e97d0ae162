"""Which charts a run's report shows, as data: a metric's name, its title, its colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airls_ray.report.charts import Chart, Dash, Line
from airls_ray.report.data import RunData, number, rolling_mean
from airls_ray.runs.best_metric import EVALUATION

Level = tuple[str, float]


@dataclass(frozen=True)
class Panel:
    """A chart of metrics over iterations; a metric that the run lacks is left out."""

    title: str
    metrics: dict[str, str]
    """Metric by name, with its name in the legend."""
    note: str = ""
    levels: Sequence[Level] = ()
    at_least: float | None = None
    """The y axis reaches down to this."""
    cut: bool = False
    """Cut the y axis where a slow start would flatten all the rest."""


LEARNING = [
    Panel(
        "Outcome", {"outcome/mean": "mean of the rollouts"}, "Share of correct rollouts, training problems"
    ),
    Panel(
        "Evaluation",
        {
            f"{EVALUATION}search/best_of_n": "best of N by PRM",
            f"{EVALUATION}search/policy_log_prob": "best of N by policy log-probability",
            f"{EVALUATION}search/majority": "majority of N",
            f"{EVALUATION}accuracy": "one sample",
        },
        "Accuracy on held-out problems during training, N samples each",
    ),
    Panel(
        "Step AUROC",
        {
            "prm/step_auroc": "PRM",
            "policy_log_prob/step_auroc": "policy log-probability",
            "prm/step_auroc_within": "PRM, within problems",
            "policy_log_prob/step_auroc_within": "policy log-probability, within problems",
        },
        "Step scores against the true correctness of steps, never seen in training",
        [("chance", 0.5)],
    ),
    Panel(
        "Trace AUROC",
        {
            "prm/trace_auroc": "PRM",
            "policy_log_prob/trace_auroc": "policy log-probability",
            "prm/trace_auroc_within": "PRM, within problems",
            "policy_log_prob/trace_auroc_within": "policy log-probability, within problems",
        },
        "Trace scores against the outcome; a choice only sees those within a problem",
        [("chance", 0.5)],
    ),
    Panel(
        "Discriminator accuracy",
        {"prm/expert_accuracy": "reference steps", "prm/policy_accuracy": "policy steps"},
        "Near 1 on both sides it has nothing left to teach",
        [("chance", 0.5)],
    ),
    Panel(
        "Policy entropy",
        {"policy/entropy": "entropy"},
        "Nats per token; a fall to 0 is a collapse",
        at_least=0.0,
    ),
    Panel("Response length", {"rollout/response_tokens_mean": "mean"}, "Tokens per rollout"),
]

DETAILS = [
    Panel(
        "PRM reward",
        {"prm/reward_mean": "mean reward"},
        "Mean of a step; rising while the outcome falls is reward hacking",
    ),
    Panel("PRM loss and entropy", {"prm/loss": "loss", "prm/entropy": "entropy of its verdicts"}, "Nats"),
    Panel(
        "PRM logits", {"prm/logit_abs_mean": "mean magnitude"}, "Mean magnitude of the discriminator's logit"
    ),
    Panel(
        "PRM values",
        {"prm/expert_value": "correct responses", "prm/policy_value": "failed ones, reweighted"},
        "Mean value per token (rePIRL)",
    ),
    Panel(
        "Effective sample size",
        {"prm/effective_sample_size": "effective", "prm/failed_rollouts": "failed rollouts"},
        "Of the importance weights; near 1 the PRM learns from a single rollout (rePIRL)",
        at_least=0.0,
    ),
    Panel(
        "PRM outputs",
        {"prm/output_abs_mean": "mean magnitude", "prm/output_drift": "change within an iteration"},
        "f of a scalar head, log-ratio to the policy of a log-probability PRM",
        at_least=0.0,
    ),
    Panel("Policy loss", {"policy/loss": "loss"}, "Clipped surrogate with its penalties"),
    Panel(
        "Clip share", {"policy/clip_share": "share"}, "Share of tokens whose ratio is clipped", at_least=0.0
    ),
    Panel("KL to the reference", {"policy/reference_kl": "KL"}, "Nats per token, k3 estimate", at_least=0.0),
    Panel("Gradient norm", {"policy/gradient_norm": "norm"}, "Policy, before clipping", at_least=0.0),
    Panel(
        "Groups without variance",
        {"groups/constant_share": "share"},
        "Share of problems whose rollouts all have the same outcome",
        at_least=0.0,
    ),
    Panel(
        "Solved problems",
        {"groups/solved_share": "share"},
        "Share of problems that any of their rollouts solves: what is left to search in",
    ),
]

STAGES = {
    "time/rollout": "rollouts",
    "time/policy_update": "policy update",
    "time/prm_update": "PRM update",
    "time/prm_score": "PRM scores",
    "time/reference": "reference",
    "time/grade": "grading",
    "time/sync": "weight sync",
    "time/evaluation": "evaluation",
}
"""Stages in the order in which they are stacked, colours 1 to 8."""

SEARCH = {
    "best_of_n": ("best of N by PRM", 1, "solid", "o"),
    "weighted": ("vote weighted by PRM", 3, "solid", "s"),
    "majority": ("majority vote", 5, "dashed", "D"),
    "policy_log_prob": ("best of N by policy log-probability", 2, "dashed", "^"),
    "oracle": ("oracle (any of N is right)", 0, "dotted", ""),
    "mean": ("one sample", 0, "solid", ""),
}  # fmt: skip
"""Name, colour, dash and marker of each way to choose an answer."""

_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")
"""By metric of a panel: a line that another one covers is seen through its gaps."""
_SPECIAL = {"time/iteration", "tokens_per_second/rollout"}


def panel_chart(run: RunData, panel: Panel) -> Chart | None:
    """Return the chart of a panel, None if the run has none of its metrics."""
    lines: list[Line] = []
    for colour, (metric, name) in enumerate(panel.metrics.items(), start=1):
        x, y = run.curve(metric)
        if x:
            lines += smoothed(name, x, y, colour, _DASHES[(colour - 1) % len(_DASHES)])
    if not lines:
        return None
    if "outcome/mean" in panel.metrics:
        x, y = run.curve(f"{EVALUATION}accuracy")
        lines += [Line("held-out problems (evaluation)", x, y, 2, "dashed", "o")] if x else []
    levels = list(panel.levels)
    base = run.value("accuracy", "base", "sampled")
    if "outcome/mean" in panel.metrics and base is not None:
        levels.append(("base policy, test problems", base))
    return Chart(
        key=next(iter(panel.metrics)),
        title=panel.title,
        note=panel.note,
        lines=lines,
        levels=levels,
        shade=run.warmup(),
        y_range=(panel.at_least, None),
    )


def smoothed(name: str, x: list[float], y: list[float], colour: int, dash: Dash = "solid") -> list[Line]:
    """Return a curve as its rolling mean over the faint raw values, or alone where it is short."""
    smooth = rolling_mean(y)
    if smooth == y:
        return [Line(name, x, y, colour, dash)]
    return [Line(name, x, y, colour, faint=True), Line(name, x, smooth, colour, dash)]


def charts(run: RunData, panels: Sequence[Panel]) -> list[Chart]:
    """Return the charts that the run has data for."""
    return [chart for panel in panels if (chart := panel_chart(run, panel)) is not None]


def other_charts(run: RunData) -> list[Chart]:
    """Return a chart for each metric that no other chart shows."""
    shown = {metric for panel in LEARNING + DETAILS for metric in panel.metrics} | set(STAGES) | _SPECIAL
    return charts(run, [Panel(name, {name: name}) for name in run.names() if name not in shown])


def stage_seconds(run: RunData) -> dict[str, list[tuple[float, float]]]:
    """Return (iteration, seconds) by stage; `other` is what an iteration took beyond its stages."""
    curves = {name: dict(zip(*run.curve(metric), strict=True)) for metric, name in STAGES.items()}
    curves = {name: curve for name, curve in curves.items() if any(curve.values())}
    whole = dict(zip(*run.curve("time/iteration"), strict=True))
    iterations = sorted(set(whole).union(*curves.values()))
    if not curves:
        return {}
    stages = {name: [(x, curve.get(x, 0.0)) for x in iterations] for name, curve in curves.items()}
    if whole:
        known = {x: sum(curve.get(x, 0.0) for curve in curves.values()) for x in iterations}
        stages["other"] = [(x, max(0.0, whole.get(x, known[x]) - known[x])) for x in iterations]
    return stages


def time_charts(run: RunData) -> list[Chart]:
    """Return the stacked seconds per stage and the rollout workers' speed."""
    found: list[Chart] = []
    stages = stage_seconds(run)
    colours = {name: colour for colour, name in enumerate(STAGES.values(), start=1)}
    if stages:
        lines = [
            Line(name, [x for x, _ in points], [y for _, y in points], colours.get(name, 0))
            for name, points in stages.items()
        ]
        totals = [sum(values) for values in zip(*(line.y for line in lines), strict=True)]
        top, note = without_outliers(totals)
        found.append(
            Chart(
                "time", "Time per stage", lines, f"Seconds per iteration{note}", shade=run.warmup(),
                stacked=True, y_range=(0.0, top), wide=True,
            )
        )  # fmt: skip
    speed = Panel(
        "Rollout speed",
        {"tokens_per_second/rollout": "tokens/s"},
        "Generated tokens per second",
        at_least=0.0,
    )
    return found + [replace(chart, wide=True) for chart in charts(run, [speed])]


def without_outliers(totals: Sequence[float]) -> tuple[float | None, str]:
    """Return the top of the axis and a remark if a slow start would flatten all the rest."""
    usual = sorted(totals)[int(0.95 * (len(totals) - 1))]
    highest = max(totals)
    if highest <= 2.0 * usual:
        return None, ""
    return 1.4 * usual, f" (cut: the longest took {highest:.0f} s)"


def search_charts(run: RunData) -> list[Chart]:
    """Return accuracy against N for the trained and the base policy, on the same y axis."""
    found = []
    values = [
        value for key in ("search", "search_base") for _, curve in _search(run, key) for _, value in curve
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) + 0.005
    for key, policy in (("search", "Trained policy"), ("search_base", "Base policy")):
        lines = []
        for method, points in _search(run, key):
            name, colour, dash, marker = SEARCH.get(method, (method, 4, "solid", "v"))
            x, y = [size for size, _ in points], [value for _, value in points]
            lines.append(Line(name, x, y, colour, dash, marker))  # type: ignore[arg-type]
        if lines:
            lines.sort(key=lambda line: -len(line.x))
            found.append(
                Chart(
                    key, policy, lines, "Accuracy against N, the number of samples per problem", "N",
                    doubling=True, y_range=(low - margin, high + margin), wide=True,
                )
            )  # fmt: skip
    return found


def _search(run: RunData, key: str) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the methods of a search with their (N, accuracy) points, known methods first."""
    part = run.part(key)
    found = []
    for method in [*SEARCH, *(name for name in part if name not in SEARCH)]:
        curve = part.get(method)
        if isinstance(curve, dict):
            points = [
                (float(size), value) for size, raw in curve.items() if (value := number(raw)) is not None
            ]
            if points:
                found.append((method, sorted(points)))
    return found


def search_rows(run: RunData) -> tuple[list[str], list[tuple[str, int]], list[list[str | float | None]]]:
    """Return headers, header groups and rows of the table of all search accuracies."""
    tables = {key: dict(_search(run, key)) for key in ("search", "search_base")}
    groups: list[tuple[str, int]] = [("", 1)]
    columns: list[tuple[str, float]] = []
    for key, policy in (("search", "trained policy, N ="), ("search_base", "base policy, N =")):
        sizes = sorted({size for points in tables[key].values() for size, _ in points})
        columns += [(key, size) for size in sizes]
        if sizes:
            groups.append((policy, len(sizes)))
    methods = list(dict.fromkeys([*tables["search"], *tables["search_base"]]))
    rows: list[list[str | float | None]] = []
    for method in methods:
        name = SEARCH[method][0] if method in SEARCH else method
        rows.append([name, *(dict(tables[key].get(method, [])).get(size) for key, size in columns)])
    return ["", *(f"{size:g}" for _, size in columns)], groups, rows
