"""The run folder: everything that a run leaves behind, always readable, wherever it was interrupted.

Whole files (checkpoints, Parquet, summary) are written beside their place and renamed into it; the
`latest` pointer comes last. One process (the driver) writes to a run folder (`locked`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from airls_ray import files
from airls_ray.errors import DataError, ModelError, RunError
from airls_ray.runs.best_metric import EVALUATION
from airls_ray.runs.checkpoints import Checkpoints, iteration_name
from airls_ray.runs.run_lock import RunLock
from airls_ray.runs.tensorboard_events import EventLog

if TYPE_CHECKING:
    import pyarrow as pa

    from airls_ray.config.schema import Config


class RunFolder:
    """`runs/<name>/` and its files; making the object touches nothing on disk."""

    def __init__(
        self,
        path: Path | str,
        keep_checkpoints: int = 2,
        keep_best: int = 0,
        best_metric: str = "outcome/mean",
    ) -> None:
        """Name the folder; of its checkpoints the newest `keep_checkpoints` stay (at least 1), and the
        `keep_best` with the largest `best_metric`."""
        self.path = Path(path)
        self._in_use: Path | None = None
        self._rebuilt_from: Path | None = None
        self._lock: RunLock | None = None
        self._last: tuple[int, dict[str, float | None]] = (-1, {})
        # A metric of the evaluation is in some lines only (`check_best_metric` knows their names beforehand).
        self._metric_known = keep_best == 0 or best_metric.startswith(EVALUATION)
        self._trains = True
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.warnings_file = self.path / "warnings.jsonl"
        self.summary_file = self.path / "summary.json"
        self.examples_file = self.path / "examples.json"
        self.report_file = self.path / "report.html"
        self.rollouts_folder = self.path / "rollouts"
        self.checkpoints_folder = self.path / "checkpoints"
        self.store = Checkpoints(self.checkpoints_folder, keep_checkpoints, keep_best, best_metric)
        self.latest_file = self.store.latest_file
        self._events = EventLog(self.path / "tensorboard")
        self._repaired = False

    # ------------------------------------------------------------------------------------ start
    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder inside the block, which makes it; nothing is written after it was lost.

        Raises:
            RunError: another driver owns it, or it cannot be written.
        """
        with RunLock(self.path) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def create(self, config: Config, *, resume: bool = False) -> None:
        """Make the folder and write `config.yaml`, fully resolved.

        Raises:
            RunError: the folder holds results already and `resume` is false; there is no run and
                `resume` is true; or the folder cannot be written.
        """
        from airls_ray.config.load import dump_config, with_absolute_paths
        from airls_ray.runs.storage import without_credentials

        results = self._results()
        if results and not resume:
            raise RunError(
                f"{self.path} already holds a run ({', '.join(results)}): "
                "continue it with --resume or choose another name"
            )
        if resume and not self.config_file.exists():
            raise RunError(f"{self.path} holds no run to continue: leave out --resume or correct the name")
        try:
            self.checkpoints_folder.mkdir(parents=True, exist_ok=True)
            self.rollouts_folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot create the run folder {self.path} ({error.strerror}): choose another output folder"
            ) from error
        for folder in (self.path, self.rollouts_folder, self.checkpoints_folder):
            files.remove_leftovers(folder)
        with self._full_disk("the configuration"), files.replacing(self.config_file) as temporary:
            dump_config(with_absolute_paths(without_credentials(config)), temporary)
        self._trains = config.train.iterations > 0

    def rewind(self, iteration: int) -> None:
        """Drop the metrics after `iteration`, so that a resumed run writes each iteration once.

        The iteration is that of the checkpoint; -1 drops all of them.
        """
        kept = [line for line in self.read_metrics() if line["iteration"] <= iteration]
        with self._full_disk("the metrics"):
            files.write_text(self.metrics_file, "".join(files.to_json(line) + "\n" for line in kept))
            self._events.restart(iteration + 1)
            warnings = [line for line in self.read_warnings() if line["iteration"] <= iteration]
            if self.warnings_file.exists():
                files.write_text(self.warnings_file, "".join(files.to_json(w) + "\n" for w in warnings))

    def _results(self) -> list[str]:
        """Names of what a run has left here; a configuration alone is no result."""
        found = [file.name for file in (self.metrics_file, self.summary_file) if file.exists()]
        return found + [folder.name for folder in self.checkpoints()]

    # ---------------------------------------------------------------------------------- metrics
    def log_metrics(
        self, iteration: int, metrics: Mapping[str, SupportsFloat | None], *, phase: str = "train"
    ) -> None:
        """Append one line to `metrics.jsonl` and the same numbers to the TensorBoard events.

        Args:
            iteration: Counted over the whole run, PRM warm-up included.
            metrics: Scalars by name; NaN, infinity and None become null (and no TensorBoard point).
            phase: "warmup" while only the PRM learns, else "train".

        Raises:
            RunError: the disk is full (the lines before stay readable), another driver has taken the folder,
                or there is no metric `best_metric`.
        """
        if self._lock is not None:
            self._lock.check()
        values = {name: files.finite(value) for name, value in metrics.items()}
        self._last = (iteration, values)
        if not self._metric_known and (phase == "train" or not self._trains):
            self._check_best_metric(values)
        line = files.to_json({"iteration": iteration, "phase": phase, **values}) + "\n"
        with self._full_disk("the metrics"):
            self.path.mkdir(parents=True, exist_ok=True)
            self._cut_torn_line()
            files.append(self.metrics_file, line.encode())
            self._events.write(
                iteration, {name: value for name, value in values.items() if value is not None}
            )

    def _check_best_metric(self, values: Mapping[str, float | None]) -> None:
        """Once, at the first iteration that has all metrics: soon enough for the first checkpoint."""
        self._metric_known = True
        if self.store.metric not in values:
            near = difflib.get_close_matches(self.store.metric, values, n=3, cutoff=0.4) or sorted(values)
            raise RunError(
                f"train.best_metric is {self.store.metric!r}, which is no metric of this run: set it to one "
                f"of metrics.jsonl, such as {', '.join(near[:5])}"
            )

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl` (none if there is no file); a torn last line is left out.

        Raises:
            DataError: a line before the last is no JSON object.
        """
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_bytes().split(b"\n")
        records = []
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if record is not None:
                records.append(record)
            elif line.strip() and number < len(lines):
                raise DataError(
                    f"{self.metrics_file} line {number} is no JSON object with an iteration: delete that line"
                )
        return records

    def log_warning(self, iteration: int, kind: str, sentence: str) -> None:
        """Append a known failure that was seen to `warnings.jsonl` (airls_ray/runs/diagnostics.py)."""
        line = files.to_json({"iteration": iteration, "kind": kind, "sentence": sentence}) + "\n"
        with self._full_disk("the warnings"):
            files.append(self.warnings_file, line.encode())

    def read_warnings(self) -> list[dict[str, Any]]:
        """Return the lines of `warnings.jsonl`; a torn one is left out."""
        if not self.warnings_file.exists():
            return []
        records = (_parse(line) for line in self.warnings_file.read_bytes().split(b"\n"))
        return [record for record in records if record is not None]

    def _cut_torn_line(self) -> None:
        """Before the first append: end the file at a whole line, or the next one would be glued to it."""
        if not self._repaired and self.metrics_file.exists():
            content = self.metrics_file.read_bytes()
            kept, newline, last = content.rpartition(b"\n")
            if last:
                tail = last + b"\n" if _parse(last) else b""
                files.write_text(self.metrics_file, (kept + newline + tail).decode())
        self._repaired = True

    # ------------------------------------------------------------------------- rollouts, results
    def write_rollouts(self, iteration: int, table: pa.Table) -> Path:
        """Write a table of rollouts as `rollouts/iteration_NNNNNN.parquet` and return its path.

        Raises:
            RunError: the disk is full; no unfinished file stays.
        """
        import pyarrow.parquet as pq

        path = self.rollouts_folder / f"{iteration_name(iteration)}.parquet"
        with self._full_disk("the rollouts"), files.replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return path

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json` (nested dictionaries; NaN becomes null), all of it or nothing."""
        with self._full_disk("the summary"):
            files.write_text(self.summary_file, files.to_json(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """Return `summary.json`, or an empty dictionary if there is none (DataError if it is broken)."""
        return files.read_json(self.summary_file, dict) or {}

    def write_examples(self, examples: list[dict[str, Any]]) -> None:
        """Write `examples.json`, the rollouts that the report shows (form: airls_ray/report/data.py)."""
        with self._full_disk("the examples"):
            files.write_text(self.examples_file, files.to_json(examples, indent=1) + "\n")

    def read_examples(self) -> list[dict[str, Any]]:
        """Return `examples.json`, or an empty list if there is none (DataError if it is broken)."""
        return files.read_json(self.examples_file, list) or []

    # ------------------------------------------------------------------------------ checkpoints
    @contextmanager
    def checkpoint_folder(self, iteration: int) -> Iterator[Path]:
        """Yield an empty folder to write a checkpoint into; on success it becomes the latest one.

        The folder's name is temporary: keep no path into it. On an error (or Ctrl-C) it is removed and
        the checkpoint before stays the latest.

        Raises:
            RunError: the disk is full, here or in an actor that wrote for us.
        """
        if self._lock is not None:
            self._lock.check()
        metrics = self._last[1] if self._last[0] == iteration else {}
        with (
            self._full_disk(f"the checkpoint of iteration {iteration}"),
            self.store.write(iteration, metrics) as folder,
        ):
            yield folder
        self.store.prune()

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoint folders, oldest first."""
        return self.store.all()

    def latest_checkpoint(self) -> Path | None:
        """Return the folder that `latest` names; the newest complete one if that is gone; or None."""
        return self.store.latest()

    def use(self, checkpoint: Path | None) -> None:
        """Keep the checkpoint that actors were started from as long as they may read it again; None: no more.

        They copy its tokenizer into every checkpoint, and an actor that takes a dead one's place loads it.
        """
        self._in_use = self._hold_instead(self._in_use, checkpoint)
        if checkpoint is None:
            self.use_rebuilt(None)
            if self.checkpoints_folder.is_dir():
                self.store.prune()

    def use_rebuilt(self, checkpoint: Path | None) -> None:
        """Keep what the learners were rebuilt from last, beside what workers and verifier start from."""
        self._rebuilt_from = self._hold_instead(self._rebuilt_from, checkpoint)

    def _hold_instead(self, before: Path | None, now: Path | None) -> Path | None:
        if now is not None:
            self.store.hold(now)
        if before is not None:
            self.store.release(before)
        return now

    def _full_disk(self, what: str) -> files.FullDisk:
        latest = self.latest_checkpoint()
        go_on = f" and continue with --resume (from {latest.name})" if latest else ""
        return files.FullDisk(self.path, what, f"free some space{go_on}")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "iteration" in record else None


def latest_models(folder: Path, prm: Path | None = None) -> tuple[Path, Path | None]:
    """Return policy and PRM of a run's latest checkpoint (or the PRM that is given).

    Raises:
        ModelError: there is no checkpoint.
    """
    checkpoint = RunFolder(folder).latest_checkpoint()
    if checkpoint is None:
        raise ModelError(f"{folder} has no checkpoint to search with: train it first, or give --policy")
    theirs = checkpoint / "prm"
    return checkpoint / "policy", prm or (theirs if theirs.is_dir() else None)
