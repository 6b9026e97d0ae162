"""Weights & Biases (`pip install wandb`); options are those of `wandb.init`, such as project and entity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airls_ray.errors import DoorError
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
        kept = run.folder / "wandb_run_id"
        if run.iteration and kept.exists():
            options |= {"id": kept.read_text().strip(), "resume": "allow"}
        self._run = self._wandb.init(**options)
        kept.write_text(f"{self._run.id}\n")

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log an iteration."""
        self._run.log(dict(values), step=iteration)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Keep the summary."""
        self._run.summary.update(dict(values))

    def file(self, path: Path) -> None:
        """Keep a file."""
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def end(self, how: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if how == "finished" else 1)
