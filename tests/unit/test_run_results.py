"""What a run and a search leave to look at: samples that can be aggregated, a status in words, pictures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from actors.train.evaluate import Samples, keep_scores
from airls_ray.cli import main as cli
from airls_ray.data.schemas import GRADES, ROLLOUTS, conform
from airls_ray.report.panels import DETAILS, LEARNING, panel_chart
from airls_ray.runs.run_control import RunControl
from airls_ray.search.plots import _scale


def rollouts(rows: int) -> pa.Table:
    table = {
        "problem_id": [f"p{row // 2}" for row in range(rows)],
        "group": [row // 2 for row in range(rows)],
        "index": [row % 2 for row in range(rows)],
        "prompt": [[2]] * rows,
        "response": [[3, 4]] * rows,
        "logprobs": [[-0.5, -0.25 * (row + 1)] for row in range(rows)],
        "version": [0] * rows,
        "step_ends": [[1, 2]] * rows,
        "finish": ["stop"] * rows,
        "outcome": [float(row % 2) for row in range(rows)],
        "worker": ["rollout-0"] * rows,
        "seconds": [0.1] * rows,
    }
    return conform(pa.table(table), ROLLOUTS)


def test_the_samples_of_a_run_can_be_aggregated(tmp_path: Path) -> None:
    file = tmp_path / "trained.parquet"
    table = rollouts(4)
    pq.write_table(table, file)
    grades = pa.Table.from_pylist(
        [
            {"outcome": row % 2, "answer": str(row % 2), "step_truth": None, "status": "graded"}
            for row in range(4)
        ],
        GRADES,
    )
    scores = [[0.9, 0.1 * (row + 1)] for row in range(4)]
    parts = [pa.table({"row": rows, "scores": [scores[row] for row in rows]}) for rows in ([0, 3], [1, 2])]
    for _ in range(2):  # a resume does it again
        keep_scores(file, Samples("trained", table, [table], grades, {}), parts)
    kept = pq.read_table(file)
    assert kept["log_prob"].to_pylist() == pytest.approx([-0.75, -1.0, -1.25, -1.5])
    assert kept["scores"].to_pylist() == scores
    assert kept["answer"].to_pylist() == ["0", "1", "0", "1"]
    assert conform(kept, ROLLOUTS).equals(table)
    assert cli.run(["aggregate", str(file), "--output", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["problems"], summary["samples"]) == (2, 2)
    assert summary["curves"]["best/last"]["2"]["accuracy"] == 1.0  # it scores more, and is right


def test_the_status_of_a_run_that_is_over_has_no_workers(tmp_path: Path, capsys: Any) -> None:
    control = RunControl(tmp_path, 60)
    control.say(phase="rollout", iteration=12, workers={"ready": 2}, tokens_per_second=99.0, outcome=0.5)
    assert cli.run(["status", str(tmp_path)]) == 0
    assert "2 ready" in capsys.readouterr().out
    control.say(phase="finished", iteration=60)
    assert cli.run(["status", str(tmp_path)]) == 0
    over = capsys.readouterr().out
    assert "finished" in over and "60 of 60" in over
    for word in ("worker", "ready", "sign of life", "driver", "tokens/s", "now"):
        assert word not in over


@pytest.mark.parametrize(
    "values", [[812.0], [812.0, 815.0, 960.0], [10.0, 20.0, 90.0], [3.0, 3e7], [1.0, 12.0]]
)
def test_no_label_of_a_tick_lies_on_another(values: list[float]) -> None:
    figure = Figure(figsize=(4, 3.5))
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot(values, [0.5] * len(values), marker="o")
    _scale(panel, values)
    figure.canvas.draw()
    labels = [*panel.get_xticklabels(which="major"), *panel.get_xticklabels(which="minor")]
    low, high = panel.get_window_extent().intervalx
    boxes = sorted(tuple(label.get_window_extent().intervalx) for label in labels if label.get_text())
    shown = [box for box in boxes if low - 30 < sum(box) / 2 < high + 30]
    assert shown
    assert all(left[1] < right[0] for left, right in pairwise(shown))


def test_lines_of_a_panel_that_cover_each_other_can_both_be_seen() -> None:
    class Flat:
        def curve(self, metric: str) -> tuple[list[float], list[float]]:
            return [1.0, 2.0], [0.5, 0.5]

        def value(self, *keys: str) -> None:
            return None

        def warmup(self) -> None:
            return None

    for panel in [*LEARNING, *DETAILS]:
        chart = panel_chart(Flat(), panel)  # type: ignore[arg-type]
        assert chart is not None
        assert len({line.dash for line in chart.lines}) == len(chart.lines) >= len(panel.metrics)
