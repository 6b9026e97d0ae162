"""Countdown with four numbers: does compute that adapts to the problem beat the same for every problem?

searches of validation problems -> calibration of the PRM's scores (airls-ray calibrate)
                                -> plan of searches by difficulty (airls-ray plan-search)
the public problems             -> instance-adaptive Best-of-N with and without the calibration, the plan
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import countdown
import typer
from search_comparison import search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airls_ray.console.progress import Progress

NUMBERS = 4
FOLDER = countdown.FOLDER / "adaptive_compute"
SEARCHES = ("best_of_n", "beam", "rebase", "particle_filter")
"""What a plan chooses among."""
CONFIDENCE = (0.5, 0.9, 0.99)
"""Of the instance-adaptive search, at the largest width: the lower, the fewer samples."""
PLAN_WIDTHS = (8, 16, 64)
"""Of `auto`; with 4 there is nothing left after its probe."""
WIDEST = countdown.BUDGETS[-1:]
STYLES: dict[tuple[str, str], dict[str, Any]] = {
    ("best_of_n", ""): {"color": "#000000", "marker": "o"},
    ("beam", ""): {"color": "#0072b2", "marker": "o"},
    ("rebase", ""): {"color": "#d55e00", "marker": "o"},
    ("particle_filter", ""): {"color": "#009e73", "marker": "o"},
    ("instance-adaptive", ", scores"): {"color": "#999999", "marker": "x", "linestyle": ":"},
    ("instance-adaptive", ", calibrated"): {"color": "#cc79a7", "marker": "s", "linestyle": "--"},
    ("by the plan", ""): {"color": "#e69f00", "marker": "D", "linestyle": "--"},
}
"""By beginning and end of a row's label."""
COLUMNS = ("search", "N", "accuracy (95 %)", "policy tokens", "Best-of-N at as many tokens")


def main(
    files: Annotated[
        Path | None,
        typer.Option(help="Folder of cd3_test.jsonl and cd4_test.jsonl; without it, problems are generated."),
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="Test problems.")] = 100,
    validation: Annotated[int, typer.Option(min=8, help="Validation problems, generated anew.")] = 100,
) -> None:
    """Search validation problems, learn a calibration and a plan from them, and use both on test problems.

    Twelve minutes on two cores after `benchmarks/countdown.py` with the same files, whose policy and PRM are
    used.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    models, _ = countdown.train(files, progress)
    new = (f"search.problems={validation}", "task.test_file=null", "seed=7")
    tested = (f"search.problems={problems}",)
    instance, auto = "search.instance_adaptive", "search.auto"
    with connected(countdown.settings(NUMBERS, files), keep=True):

        def found(
            overrides: Sequence[str], names: Sequence[str], widths: Sequence[int], where: str
        ) -> dict[str, Any]:
            config = countdown.settings(NUMBERS, files, *overrides)
            return search(config, "prm", models.policy, models.prms["prm"], names, widths, FOLDER / where)

        learned = f"validation_{validation}"
        found(new, SEARCHES, countdown.BUDGETS, learned)
        calibration, plan = learn(FOLDER / learned)
        test = f"test_{problems}"
        fixed = found(tested, SEARCHES, countdown.BUDGETS, f"{test}/fixed")
        rows = [{**row, "label": row["algorithm"]} for row in fixed["algorithms"]]
        for level in CONFIDENCE:
            for name, more in (("scores", ()), ("calibrated", (f"{instance}.calibration={calibration}",))):
                chosen = (*tested, f"{instance}.confidence={level}", *more)
                one = found(chosen, ["instance_adaptive"], WIDEST, f"{test}/{level}_{name}")
                label = f"instance-adaptive, C = {level}, {name}"
                rows += [{**row, "label": label} for row in one["algorithms"]]
        planned = found((*tested, f"{auto}.plan={plan}"), ["auto"], PLAN_WIDTHS, f"{test}/auto")
        rows += [{**row, "label": "by the plan"} for row in planned["algorithms"]]
    curve = {int(width): value for width, value in fixed["best_of_n"]["best_of_n"].items()}
    report(with_equal_tokens(rows, curve), problems, validation, progress)


def learn(folder: Path) -> tuple[Path, Path]:
    """Calibration and plan from the records of a search, by the commands that a user has."""
    from airls_ray.cli.main import run

    records, calibration, plan = (
        folder / name for name in ("records.parquet", "calibration.json", "plan.yaml")
    )
    for arguments in (
        ["calibrate", str(records), "--output", str(calibration), "--method", "isotonic"],
        ["plan-search", str(records), "--output", str(plan)],
    ):
        if run(arguments):
            raise SystemExit(1)
    return calibration, plan


def with_equal_tokens(rows: Sequence[Mapping[str, Any]], curve: Mapping[int, float]) -> list[dict[str, Any]]:
    """Add to each row what Best-of-N reaches with as many policy tokens.

    Args:
        rows: of searches, Best-of-N at the largest width among them.
        curve: accuracy of Best-of-N by N, from samples of that width; straight in log N between.
    """
    import numpy as np

    largest = max(curve)
    whole = next(row for row in rows if (row["algorithm"], row["budget"]) == ("best_of_n", largest))
    widths = sorted(curve)
    return [
        {
            **row,
            "best_of_n": float(
                np.interp(
                    np.log(row["policy_tokens"] * largest / whole["policy_tokens"]),
                    np.log(widths),
                    [curve[width] for width in widths],
                )
            ),
        }
        for row in rows
    ]


def report(rows: Sequence[Mapping[str, Any]], problems: int, validation: int, progress: Progress) -> None:
    """The table, the result file, the picture."""
    shown = [
        [
            row["label"],
            str(row["budget"]),
            f"{row['accuracy']:.3f} ({row['low']:.3f}-{row['high']:.3f})",
            f"{row['policy_tokens']:,.0f}",
            f"{row['best_of_n']:.3f}",
        ]
        for row in rows
    ]
    progress.table(f"countdown, {NUMBERS} numbers, {problems} problems", shown, COLUMNS)
    names = ("label", "algorithm", "budget", "accuracy", "low", "high", "policy_tokens", "best_of_n")
    kept = [{name: row[name] for name in names} for row in rows]
    figures = {"problems": problems, "validation_problems": validation, "rows": kept}
    path = common.write_result("adaptive_compute", figures)
    draw(path.with_suffix(".png"), kept)
    progress.say(f"written to {path} and .png")


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Accuracy against policy tokens: fixed searches as lines, what adapts as points on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for label, style in STYLES.items():
        line = [row for row in rows if row["label"].startswith(label[0]) and row["label"].endswith(label[1])]
        line.sort(key=lambda row: row["policy_tokens"])
        x, y = [row["policy_tokens"] for row in line], [row["accuracy"] for row in line]
        panel.plot(x, y, label=label[0] + label[1], markersize=6, **style)
    panel.set(xscale="log", xlabel="policy tokens a problem", ylabel="accuracy")
    panel.set_title(f"Countdown, {NUMBERS} numbers: the same compute for each problem, and what adapts")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    common.run(main)
