"""Trackio (`pip install trackio`), on this machine; options are those of `trackio.init`, such as space_id."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airls_ray.errors import DoorError
from airls_ray.runs.told_once import ToldOnce
from airls_ray.runs.trackers import TrackedRun


class Tracker:
    """One Trackio run for a run folder; `--resume` goes on with it.

    Without `space_id` or `server_url`, or Trackio's environment variables for these, nothing leaves the
    machine.
    """

    def __init__(self, **options: Any) -> None:
        """Keep the options of `trackio.init`."""
        try:
            import trackio
        except ImportError:
            raise DoorError("needs the package trackio: pip install trackio") from None
        self._trackio, self._options = trackio, {"project": "airls-ray", "embed": False, **options}
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the run of this folder."""
        options: dict[str, Any] = {"name": run.name, "config": dict(run.config), **self._options}
        self._told = ToldOnce(run, "trackio_run_name")
        if self._told.name:
            options |= {"name": self._told.name, "resume": "allow"}
        self._run = self._trackio.init(**options)
        self._told.call(self._run.name)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log an iteration."""
        if self._told.is_new(iteration):
            self._run.log(dict(values), step=iteration)
            self._told.told(iteration)

    def file(self, path: Path) -> None:
        """Keep a file."""
        self._trackio.save(path, project=self._options["project"])

    def end(self, how: str) -> None:
        """End the run."""
        self._run.finish()
