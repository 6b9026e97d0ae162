"""A line of JSON for each iteration, appended to the file `path`."""

import json
from collections.abc import Mapping
from pathlib import Path


class Tracker:
    """Writes metrics and summary."""

    def __init__(self, path: str = "metrics.jsonl") -> None:
        """`path`: relative to the working directory."""
        self._path = Path(path)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **values}) + "\n")
