"""Weights & Biases (`pip install wandb`); options are those of `wandb.init`, such as project and entity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airls_ray.errors import DoorError
from airls_ray.runs.told_once import ToldOnce
from airls_ray.runs.trackers import TrackedRun


class Tracker:
    """One W&B run for a run folder; `--resume` goes on with it."""

    def __init__(self, **options: Any) -> None:
        """Keep the options of `wandb.init`."""
        try:
            import wandb
        except ImportError:
            raise DoorError("needs the package wandb: pip install wandb") from None
        self._wandb, self._options = wandb, options
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the run of this folder."""
        options = {
            "name": run.name,
            "dir": str(run.folder),
            "config": dict(run.config),
            "project": "airls-ray",
            **self._options,
        }
        self._told = ToldOnce(run, "wandb_run_id")
        if self._told.name:
            options |= {"id": self._told.name, "resume": "allow"}
        self._run = self._wandb.init(**options)
        self._told.call(self._run.id)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log an iteration."""
        if self._told.is_new(iteration):
            self._run.log(dict(values), step=iteration)
            self._told.told(iteration)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Keep the summary."""
        self._run.summary.update(dict(values))

    def file(self, path: Path) -> None:
        """Keep a file."""
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def end(self, how: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if how == "finished" else 1)
