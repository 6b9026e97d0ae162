"""The benchmark of neighbouring systems: what its table takes of the finished runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as for `python benchmarks/NAME.py`

import methods
import systems


def record(task: str, system: str, seed: int, counts: str, **more: Any) -> dict[str, Any]:
    right = sum(map(int, counts)) / (8 * len(counts))
    return {
        "task": task, "system": system, "seed": seed, "base": 0.25, "trained": right, "right_of_8": counts,
        "length": 10.0 + seed, "auroc_within": None, **more,
    }  # fmt: skip


def test_figures_are_means_over_the_seeds() -> None:
    runs = [
        record("arithmetic", "prof", 0, "0880", auroc_within=0.5),
        record("arithmetic", "prof", 1, "1000", auroc_within=0.75),
    ]
    found = systems.figure_of(runs)
    assert (found["seeds"], found["base"], found["length"], found["auroc_within"]) == (2, 0.25, 10.5, 0.625)
    assert found["trained"] == pytest.approx((16 / 32 + 1 / 32) / 2)
    assert found["any_of_8"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["low"] <= found["trained"] <= found["high"]


def test_a_row_has_a_cell_for_every_column() -> None:
    found = systems.figure_of([record("countdown", "grpo", 0, "0246")])
    row = systems.cells("GRPO", found)
    assert len(row) == len(systems.COLUMNS)
    assert row[-1] == "-"  # no PRM


def test_the_table_has_finished_runs_of_all_tasks_and_none_of_other_settings() -> None:
    wanted = [("arithmetic", 0), ("countdown", 2)]
    one = systems.SYSTEMS[0]
    keys = [methods.key_of(systems.run_config(task, seed, one)) for task, seed in wanted]
    records = {key: record(task, one.name, seed, "4") for key, (task, seed) in zip(keys, wanted, strict=True)}
    records["arithmetic/grpo_seed_0/of_old"] = record("arithmetic", one.name, 0, "8")
    found = systems.current_records(records, systems.SEEDS)
    assert [(each["task"], each["seed"]) for each in found] == wanted


def test_every_system_has_settings_of_its_own() -> None:
    keys = [methods.key_of(systems.run_config("countdown", 0, one)) for one in systems.SYSTEMS]
    digests = [key.rpartition("/")[2] for key in keys]
    assert len(set(digests)) == len(systems.SYSTEMS) == len({one.name for one in systems.SYSTEMS})
