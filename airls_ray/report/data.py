"""What a report reads from a run folder, and curves out of its metrics.

`examples.json` is a list of `{"prompt", "answer", "outcome", "policy", "steps"}` with `policy` "base" or
"trained" and `steps` a list of `{"text", "score", "truth"}`; score and truth may be null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airls_ray.errors import RunError
from airls_ray.runs.run_folder import RunFolder

Curve = tuple[list[float], list[float]]
"""Iterations and values, of equal length."""


@dataclass(frozen=True)
class RunData:
    """A run as the report sees it; what is missing is empty."""

    path: Path
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    examples: list[dict[str, Any]]
    config: str
    warnings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's name: of its summary, or its folder's."""
        return str(self.summary.get("name") or self.path.resolve().name)

    @property
    def method(self) -> str | None:
        """The method's name: of its summary, or of its configuration."""
        if self.summary.get("method"):
            return str(self.summary["method"])
        match = re.search(r"^method:\n(?:[ \t].*\n)*?[ \t]+name: *(\S+)", self.config, re.MULTILINE)
        return match[1] if match else None

    def value(self, *path: str) -> float | None:
        """Return a number of the summary, None if it is not there."""
        found: Any = self.summary
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return number(found)

    def part(self, key: str) -> dict[str, Any]:
        """Return a dictionary of the summary, empty if it is not there."""
        found = self.summary.get(key)
        return found if isinstance(found, dict) else {}

    def curve(self, name: str) -> Curve:
        """Return a metric by iteration; of an iteration that was logged twice the last line counts."""
        points: dict[float, float] = {}
        for line in self.metrics:
            value, iteration = number(line.get(name)), number(line["iteration"])
            if value is not None and iteration is not None:
                points[iteration] = value
        return sorted(points), [points[iteration] for iteration in sorted(points)]

    def warmup(self) -> tuple[float, float] | None:
        """Return the first and the last iteration in which only the PRM learnt."""
        found = [float(line["iteration"]) for line in self.metrics if line.get("phase") == "warmup"]
        return (min(found), max(found)) if found else None

    def names(self) -> list[str]:
        """Return the names of all metrics that are numbers, sorted."""
        found = {name for line in self.metrics for name, value in line.items() if number(value) is not None}
        return sorted(found - {"iteration"})


def load_run(path: Path) -> RunData:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, or neither metrics nor a summary in it.
        DataError: a file is broken.
    """
    if not path.is_dir():
        raise RunError(f"there is no run folder {path}: give the path of one, such as runs/demo")
    folder = RunFolder(path)
    metrics, summary = folder.read_metrics(), folder.read_summary()
    if not metrics and not summary:
        raise RunError(f"{path} holds neither metrics.jsonl nor summary.json to report on: train first")
    config = folder.config_file.read_text(encoding="utf-8") if folder.config_file.exists() else ""
    return RunData(path, metrics, summary, folder.read_examples(), config, folder.read_warnings())


def number(value: Any) -> float | None:
    """Return a finite number as a float, everything else (booleans too) as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rolling_mean(values: Sequence[float]) -> list[float]:
    """Return a centred mean over about a tenth of the curve; near its ends over what there is of it."""
    reach = len(values) // 20
    windows = [values[max(0, at - reach) : at + reach + 1] for at in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of several curves at the iterations that all of them have."""
    tables = [dict(zip(*curve, strict=True)) for curve in curves]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return shared, [sum(table[x] for table in tables) / len(tables) for x in shared]
