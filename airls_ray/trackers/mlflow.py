"""MLflow (`pip install mlflow-skinny sqlalchemy alembic`); options: tracking_uri and experiment."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airls_ray.errors import DoorError
from airls_ray.runs.told_once import ToldOnce
from airls_ray.runs.trackers import TrackedRun

_LONGEST = 500
_PARAMETERS = 100
"""Most of one request, as MLflow has it."""


class Tracker:
    """One MLflow run for a run folder; `--resume` goes on with it."""

    def __init__(self, tracking_uri: str | None = None, experiment: str = "airls-ray") -> None:
        """`tracking_uri`: null is MLflow's own default."""
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise DoorError("needs MLflow: pip install mlflow-skinny sqlalchemy alembic") from None
        self._client, self._metric, self._param = MlflowClient(tracking_uri), Metric, Param
        self._experiment = experiment

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the run of this folder."""
        self._run = ToldOnce(run, "mlflow_run_id")
        if self._run.name:
            self._client.update_run(self._run.name, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(self._experiment)
        place = known.experiment_id if known else self._client.create_experiment(self._experiment)
        self._run.call(self._client.create_run(place, run_name=run.name).info.run_id)
        settings = [self._param(name, str(value)[:_LONGEST]) for name, value in _flat(run.config)]
        for first in range(0, len(settings), _PARAMETERS):
            self._client.log_batch(self._run.name, params=settings[first : first + _PARAMETERS])

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log an iteration, in one request."""
        if self._run.is_new(iteration):
            now = int(time.time() * 1000)
            points = [self._metric(name, value, now, iteration) for name, value in values.items()]
            self._client.log_batch(self._run.name, metrics=points)
            self._run.told(iteration)

    def file(self, path: Path) -> None:
        """Keep a file."""
        self._client.log_artifact(self._run.name, str(path))

    def end(self, how: str) -> None:
        """End the run."""
        self._client.set_terminated(self._run.name, "FINISHED" if how == "finished" else "FAILED")


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
