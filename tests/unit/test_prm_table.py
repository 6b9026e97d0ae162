"""The table of `prm_baselines.py`: rows over seeds, and their order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as for `python benchmarks/NAME.py`

import evidence
import prm_table


def prm(label: str, *best: float) -> dict[str, Any]:
    return {
        "label": label,
        "seeds": [
            {
                "rate": 1e-4, "epoch": 1, "aggregate": "min" if seed else "mean",
                "test": {"best_of_n": value, "low": value - 0.1, "high": value + 0.2}
                | {name: value / 2 for name in prm_table.AUROCS},
            }
            for seed, value in enumerate(best)
        ],
    }  # fmt: skip


FOUND = {
    "controls": {
        "one_sample": {"best_of_n": 0.25, "low": 0.125, "high": 0.375},
        "log_prob": {"best_of_n": 0.5, "low": 0.375, "high": 0.75, "auroc": 0.875},
        "any_right": {"best_of_n": 0.75},
    },
    "prms": {"weak": prm("weak", 0.25), "strong": prm("strong", 0.5, 0.75, 0.25 + 0.375)},
}


def test_a_row_is_of_all_seeds() -> None:
    row = prm_table.over_seeds(FOUND["prms"]["strong"])
    assert (row["seeds"], row["best_of_n"], row["by_seed"]) == (3, 0.625, [0.5, 0.75, 0.625])
    assert (row["low"], row["high"], row["auroc"]) == pytest.approx((0.525, 0.825, 0.3125))


def test_prms_stand_between_the_controls_the_best_first() -> None:
    labels = [row["label"] for row in prm_table.rows_of(FOUND)]
    assert labels == ["one sample", "policy log-probability (control)", "strong", "weak", "any right"]


def test_every_row_of_the_prm_table_has_a_cell_for_every_column() -> None:
    rows = [prm_table.cells(row) for row in prm_table.rows_of(FOUND)]
    assert {len(row) for row in rows} == {len(prm_table.COLUMNS)}
    assert rows[2][:4] == ["strong", "3", "0.625 (0.525-0.825)", "0.500, 0.750, 0.625"]
    assert rows[2][-1] == "min, mean"  # by how often


def test_the_evidence_has_the_same_figures_and_the_settings() -> None:
    rows = evidence.prm_rows(FOUND)
    assert rows["strong"]["value"] == 0.625 and rows["log_prob"]["value"] == 0.5
    assert [one["aggregate"] for one in rows["strong"]["settings"]] == ["mean", "min", "min"]


def test_a_picture_has_a_panel_a_task_also_where_prms_are_missing(tmp_path: Path) -> None:
    fewer = {**FOUND, "prms": {"weak": FOUND["prms"]["weak"]}}
    prm_table.write(tmp_path / "prms.json", {"one": fewer, "two": FOUND})
    assert (tmp_path / "prms.png").stat().st_size > 1000
    assert (tmp_path / "prms.md").read_text().count("### ") == 2
