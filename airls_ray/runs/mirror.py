"""A run folder's copy in other storage: written in the background, fetched by a resume elsewhere.

A checkpoint is published by its pointer: files first, `checkpoint.json` after them, then the run's other
files, and `checkpoints/latest` last. What a killed writer left is never pointed to, and is written again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError, RunError
from airls_ray.runs.checkpoint_record import RECORD, CheckpointRecord, check_files, parse_record
from airls_ray.runs.checkpoints import checkpoint_iteration, is_checkpoint, iteration_name, kept, ranking
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.run_lock import HEARTBEAT, LOCK
from airls_ray.runs.storage import Storage, open_storage

_CHECKPOINTS = "checkpoints"
_LATEST, _BEST = f"{_CHECKPOINTS}/latest", f"{_CHECKPOINTS}/best"
_LARGE_BYTES = 2**30
_FAREWELL_SECONDS = 20.0
"""How long a run that failed waits for the copy that is under way."""

Say = Callable[[str], None]


class Copies(Protocol):
    """Where checkpoints are copied to."""

    def checkpoint(self, folder: Path) -> None:
        """Copy a new checkpoint and the run's other files, soon and in the background."""
        ...

    def metrics(self) -> dict[str, float]:
        """What went wrong so far, for metrics.jsonl."""
        ...


class NoCopies:
    """Stands where no storage is configured."""

    def checkpoint(self, folder: Path) -> None:
        """Nothing to do."""

    def metrics(self) -> dict[str, float]:
        """No metrics."""
        return {}


class Mirror:
    """Copies `run` to `storage` in one thread; of the checkpoints that wait only the newest is kept.

    As a context it ends the thread; `finish` before that waits for the last copy.
    """

    def __init__(self, run: RunFolder, storage: Storage, deadline_seconds: float, say: Say) -> None:
        """`deadline_seconds`: longest wait of `finish`; `say` prints a warning."""
        self._run = run
        self._storage = storage
        self._deadline = deadline_seconds
        self._say = say
        self._sent: dict[str, tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._next: Path | None = None
        self._busy = self._over = False
        self._last_error: RunError | None = None
        self.errors = self.skipped = 0
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, after a short wait for what is under way."""
        self._wait(_FAREWELL_SECONDS)
        with self._changed:
            self._over = True
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------ copy there
    def checkpoint(self, folder: Path) -> None:
        """See `Copies`. A checkpoint that still waits for its turn gives it to this newer one."""
        self._run.store.hold(folder)
        with self._changed:
            if self._next is not None:
                self._run.store.release(self._next)
                self.skipped += 1
            self._next = folder
            self._changed.notify_all()

    def metrics(self) -> dict[str, float]:
        """See `Copies`."""
        return {"storage/errors": float(self.errors), "storage/skipped": float(self.skipped)}

    def finish(self) -> None:
        """Copy what is not there yet, report included, and wait for it.

        Raises:
            RunError: it failed or took too long; the run folder itself is complete.
        """
        deadline = time.monotonic() + self._deadline
        self._wait(self._deadline)
        latest = self._run.latest_checkpoint()
        if latest is not None:
            self.checkpoint(latest)
        done = self._wait(deadline - time.monotonic())
        if not done or self._last_error is not None:
            why = f"it took more than {self._deadline:g} s" if not done else str(self._last_error)
            raise RunError(
                f"the run is complete in {self._run.path}, but its last copy to {self._storage.shown} "
                f"failed: {why}; run the same command with --resume to try again, or copy the folder"
            )

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._next is None and not self._busy, max(seconds, 0.0))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._over)
                if self._over or self._next is None:
                    return
                folder, self._next, self._busy = self._next, None, True
            try:
                self._copy(folder)
                self._last_error = None
            except (RunError, OSError) as error:
                self.errors += 1
                self._last_error = error if isinstance(error, RunError) else RunError(str(error))
                self._say(f"Warning: {folder.name} was not copied: {error}; the run goes on")
            finally:
                self._run.store.release(folder)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _copy(self, folder: Path) -> None:
        self._copy_checkpoint(folder)
        self._copy_run_files()
        self._storage.write_text(_LATEST, folder.name + "\n")
        self._prune(checkpoint_iteration(folder))

    def _copy_checkpoint(self, folder: Path) -> None:
        name, record = f"{_CHECKPOINTS}/{folder.name}", folder / RECORD
        if self._storage.read_text(f"{name}/{RECORD}") == record.read_text(encoding="utf-8"):
            return
        self._storage.delete(name)  # an unfinished or another one, which must not look complete meanwhile
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != record:
                self._storage.upload(path, f"{name}/{path.relative_to(folder).as_posix()}")
        self._storage.replace(record, f"{name}/{RECORD}")

    def _copy_run_files(self) -> None:
        """All but the checkpoints: those that changed since they were copied."""
        for path in sorted(self._run.path.rglob("*")):
            name = path.relative_to(self._run.path).as_posix()
            if not path.is_file() or not _is_copied(name):
                continue
            sign = _sign(path)
            if self._sent.get(name) != sign:
                # Large ones are weights, which never change, and S3 cannot rename beyond 5 GB.
                put = self._storage.replace if sign[0] < _LARGE_BYTES else self._storage.upload
                put(path, name)
                self._sent[name] = sign

    def _prune(self, latest: int) -> None:
        """As the run folder prunes, by the records that are there: another machine may have written some."""
        store = self._run.store
        scores = {number: self._score(number) for number in self._numbers()}
        stay = kept(scores, latest, newest=store.keep, best=store.keep_best)
        for iteration in sorted(scores.keys() - stay):
            self._storage.delete(f"{_CHECKPOINTS}/{iteration_name(iteration)}")
        if store.keep_best and (ranked := ranking(scores)):
            self._storage.write_text(_BEST, iteration_name(ranked[0]) + "\n")

    def _numbers(self) -> list[int]:
        """Iterations of the checkpoints that are there, newest first."""
        there = [name for name in self._storage.folders(_CHECKPOINTS) if is_checkpoint(name)]
        return sorted((int(name.rpartition("_")[2]) for name in there), reverse=True)

    def _score(self, iteration: int) -> float | None:
        """As `Checkpoints` scores its own: None where the record is broken.

        Raises:
            RunError: the storage failed, which is no reason to take a checkpoint for a bad one.
        """
        text = self._storage.read_text(_record_path(iteration)) if self._run.store.keep_best else None
        try:
            return None if text is None else parse_record(text, "").metrics.get(self._run.store.metric)
        except RunError:  # a resume says so
            return None

    # ------------------------------------------------------------------------------------ fetch here
    def require_free(self) -> None:
        """A new run must not write over one that lies in the storage.

        Raises:
            RunError: there is one.
        """
        if self._storage.read_text(_LATEST) is not None:
            raise RunError(
                f"{self._storage.shown} already holds a run: continue it with --resume or choose another name"
            )

    def fetch(self) -> str | None:
        """Bring the newest complete checkpoint here if it is newer than what is here, with the run's files.

        The best ones that the run keeps come, too.

        Returns its name; None if nothing was fetched.

        Raises:
            RunError: it is of another format, or the storage failed.
        """
        here = self._run.latest_checkpoint()
        above = -1 if here is None else checkpoint_iteration(here)
        published = (self._storage.read_text(_LATEST) or "").strip()
        if not is_checkpoint(published):
            return None
        last = int(published.rpartition("_")[2])
        numbers = [number for number in self._numbers() if number <= last]
        if not numbers or numbers[0] <= above:
            return None
        self._fetch_best(numbers)
        for number in numbers:
            if number > above and self._fetch_checkpoint(number):
                self._fetch_run_files()
                files.write_text(self._run.latest_file, iteration_name(number) + "\n")
                return iteration_name(number)
        return None

    def _fetch_best(self, numbers: list[int]) -> None:
        """Bring the best but the newest: the best of those that are here would else be named the best."""
        best = ranking({number: self._score(number) for number in numbers})[: self._run.store.keep_best]
        for number in best:
            if number != numbers[0] and not (self._run.checkpoints_folder / iteration_name(number)).exists():
                self._fetch_checkpoint(number)

    def _fetch_checkpoint(self, number: int) -> bool:
        """Bring a checkpoint here; False where it is not whole there."""
        name = iteration_name(number)
        record = self._record(number)
        if record is None:
            return False
        try:
            with files.replacing(self._run.checkpoints_folder / name) as temporary:
                for file in (*record.sizes, RECORD):
                    self._storage.download(f"{_CHECKPOINTS}/{name}/{file}", temporary / file)
                check_files(temporary, record)
        except RunError as error:
            self._say(f"Warning: {name} could not be fetched from {self._storage.shown}: {error}")
            return False
        return True

    def _fetch_run_files(self) -> None:
        for name in self._storage.files():
            if _is_copied(name):
                local = self._run.path / name
                with files.replacing(local) as temporary:
                    self._storage.download(name, temporary)
                self._sent[name] = _sign(local)

    def _record(self, iteration: int) -> CheckpointRecord | None:
        path = _record_path(iteration)
        text = self._storage.read_text(path)
        return None if text is None else parse_record(text, f"{self._storage.shown}/{path}")


def open_mirror(config: Config, run: RunFolder, say: Say) -> Mirror | None:
    """Return the mirror of a run that `train.storage` asks for, its storage tried; None without one.

    Raises:
        ConfigError: the storage is unknown, cannot be reached or is the run folder itself.
    """
    train = config.train
    if train.storage is None:
        return None
    storage = open_storage(train.storage, train.storage_deadline_seconds).below(run.path.name)
    local = storage.local_path()
    if local is not None and local.resolve() == run.path.resolve():
        raise ConfigError(
            f"train.storage is {storage.shown}, where the run folder is already: choose another place"
        )
    storage.check()
    return Mirror(run, storage, train.storage_deadline_seconds, say)


def _record_path(iteration: int) -> str:
    return f"{_CHECKPOINTS}/{iteration_name(iteration)}/{RECORD}"


def _is_copied(name: str) -> bool:
    """Whether a file of the run folder belongs to its copy: no checkpoints, locks or unfinished files."""
    parts = name.split("/")
    return parts[0] not in (_CHECKPOINTS, LOCK, HEARTBEAT) and not any(part.startswith(".") for part in parts)


def _sign(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
