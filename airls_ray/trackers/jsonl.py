"""A line of JSON for each iteration, and one for the summary, appended to the file `path`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airls_ray import files
from airls_ray.runs.trackers import TrackedRun


class Tracker:
    """Writes metrics and summary. Iterations that are done again, as after `--resume`, have one line."""

    def __init__(self, path: str = "metrics.jsonl") -> None:
        """`path`: relative to the working directory."""
        self._path = Path(path)
        self._last = 0

    def start(self, run: TrackedRun) -> None:
        """Go on behind the iterations that are done, or with whatever the file has before a new run."""
        if run.iteration:
            self._forget(run.iteration + 1)
        self._last = run.iteration

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        if iteration <= self._last:
            self._forget(iteration)
        self._last = iteration
        self._append({"iteration": iteration, **values})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Append one line with the summary."""
        self._append({"summary": dict(values)})

    def _append(self, line: Mapping[str, Any]) -> None:
        files.append(self._path, (files.to_json(line) + "\n").encode())

    def _forget(self, first: int) -> None:
        """Leave out the last lines that are of the iteration `first` or later; before them are others'."""
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        while lines and _is_of(lines[-1], first):
            lines.pop()
        files.write_text(self._path, "".join(lines))


def _is_of(line: str, first: int) -> bool:
    """Whether a line is of the iteration `first` or later, of a summary, or was cut as it was written."""
    try:
        found = json.loads(line)
    except ValueError:
        return True
    return isinstance(found, dict) and ("summary" in found or found.get("iteration", -1) >= first)
