"""Labelled solutions, a scorer that knows their words, and what the command writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airls_ray.cli import main as cli
from airls_ray.prm.items import StepText


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def solutions(problems: int = 12, **more: Any) -> list[dict[str, Any]]:
    """Every third is right, the others have a first wrong step, which is called `bad`."""
    return [
        {
            "problem": f"problem {n}",
            "steps": ["bad" if step == n % 3 - 1 else "good" for step in range(3)],
            "label": n % 3 - 1,
            **more,
        }
        for n in range(problems)
    ]


class KeywordScorer:
    """Knows the words; remembers what it was asked."""

    def __init__(self, good: float = 0.9, bad: float = 0.2) -> None:
        self.values = {"good": good, "bad": bad}
        self.asked: list[StepText] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.asked += items
        return [[self.values[step] for step in item.steps] for item in items]


def run(*arguments: Any) -> int:
    return cli.run(["evaluate-prm", *map(str, arguments)])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())
