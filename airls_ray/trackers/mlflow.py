"""MLflow (`pip install mlflow-skinny sqlalchemy alembic`); options: tracking_uri and experiment."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airls_ray.errors import DoorError
from airls_ray.runs.trackers import TrackedRun

_LONGEST = 500


class Tracker:
    """One MLflow run for a run folder; `--resume` goes on with it."""

    def __init__(self, tracking_uri: str | None = None, experiment: str = "airls-ray") -> None:
        """`tracking_uri`: null is MLflow's own default."""
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise DoorError("needs MLflow: pip install mlflow-skinny sqlalchemy alembic") from None
        self._client = MlflowClient(tracking_uri)
        self._experiment, self._id = experiment, ""

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the run of this folder."""
        kept = run.folder / "mlflow_run_id"
        if run.iteration and kept.exists():
            self._id = kept.read_text().strip()
            self._client.update_run(self._id, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(self._experiment)
        place = known.experiment_id if known else self._client.create_experiment(self._experiment)
        self._id = self._client.create_run(place, run_name=run.name).info.run_id
        kept.write_text(self._id + "\n")
        for name, value in _flat(run.config):
            self._client.log_param(self._id, name, str(value)[:_LONGEST])

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log an iteration."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=iteration)

    def file(self, path: Path) -> None:
        """Keep a file."""
        self._client.log_artifact(self._id, str(path))

    def end(self, how: str) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FINISHED" if how == "finished" else "FAILED")


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
