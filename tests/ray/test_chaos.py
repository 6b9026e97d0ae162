"""A run whose node and driver are killed, against one left in peace: the benchmark at small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_killed_node_and_a_killed_driver_change_nothing_that_is_learned(tmp_path: Path) -> None:
    """The driver is started again as `--resume` does; each group is learned from once, in the same order."""
    options = ["--kills=2", "--every=15", "--iterations=20", "--only=driver", "--only=node", "--seed=4"]
    done = subprocess.run(
        [sys.executable, "benchmarks/chaos.py", *options, f"--output={tmp_path}"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "chaos.json").read_text(encoding="utf-8"))["figures"]
    assert set(figures["kills"]) == {"driver", "node"}
    assert figures["completed"] and figures["same_groups_in_the_same_order"]
    assert figures["groups_dropped"] == figures["processes_left"] == 0
