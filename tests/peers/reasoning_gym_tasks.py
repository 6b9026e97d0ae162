"""Run by test_reasoning_gym.py beside the package: draw problems of every data set and judge their traces."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_gym.factory import DATASETS  # type: ignore[import-not-found, unused-ignore]

from airls_ray.tasks.base import Problem, Task
from airls_ray.tasks.families.reasoning_gym import ReasoningGym
from airls_ray.tasks.gym.chains import _CHAINS
from airls_ray.tasks.gym.compact import COMPACT
from airls_ray.tasks.own import make_own_task

NEED_MORE = {"composite"}
"""Data sets that cannot be made without settings."""


def cut(task: Task, text: str) -> list[str]:
    return [piece for piece in text.split(task.step_delimiter) if piece.strip()]


def look(name: str, count: int, *, compact: bool = False) -> dict[str, Any]:
    options = {"dataset": name, "test_problems": 3, "compact": compact}
    task: Task = make_own_task(ReasoningGym, options)
    problems: list[Problem] = list(islice(task.problems("train", 0), count))
    traced = [one for one in problems if one.traces]
    truths = [(one, cut(task, one.traces[0])) for one in traced]
    known = [(one, steps) for one, steps in truths if task.step_truth(one, steps) is not None]
    return {
        "traces": len(traced),
        "right": sum(task.grade(one, one.traces[0]).outcome for one in traced),
        "all_steps_right": sum(all(task.step_truth(one, steps) or [False]) for one, steps in known),
        "cut_is_right": sum(
            all(task.step_truth(one, [steps[0], *steps[2:]]) or [False])
            and task.grade(one, "".join([steps[0], *steps[2:]])).outcome == 1.0
            for one, steps in known
            if len(steps) > 2
        ),
        "wrong": sum(task.grade(one, "I do not know.").outcome for one in problems),
    }


def main() -> None:
    """Write what was found of each data set."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(DATASETS) - NEED_MORE):
        try:
            found[name] = look(name, int(sys.argv[1]) if name in _CHAINS else 2)
        except Exception as error:  # of whatever data set: the test names it
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    for name in COMPACT:
        found[f"{name}, compact"] = look(name, int(sys.argv[1]), compact=True)
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
