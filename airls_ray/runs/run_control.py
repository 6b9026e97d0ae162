"""What is asked of a live run, and what it says of itself: two small files in its folder, no ports.

`control.json` is written by `airls-ray scale` and read by the driver; `status.json` the other way round.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airls_ray import files
from airls_ray.errors import RunError

_STALE_SECONDS = 3600.0
"""A stage of a large run is silent for many minutes."""


@dataclass
class Status:
    """A run as its driver sees it."""

    phase: str = "starting"
    """What it does now: starting, a stage of the loop (rollout, policy_update ...), or how it ended."""
    iteration: int = 0
    """Iterations done."""
    iterations: int = 0
    """Of so many."""
    workers: dict[str, int] | None = None
    """Rollout workers by state."""
    tokens_per_second: float | None = None
    """Of sampling, in the last iteration."""
    outcome: float | None = None
    """Mean outcome of the last iteration."""
    last_error: str | None = None
    """The last failure, mended or not."""
    updated: float = 0.0
    """Seconds since 1970."""
    host: str = ""
    pid: int = 0

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.phase in ("finished", "failed", "interrupted")

    @property
    def stale(self) -> bool:
        """Whether its driver is gone without having said so, as far as can be seen from here."""
        if self.over:
            return False
        if self.host == socket.gethostname():
            return not Path(f"/proc/{self.pid}").exists() if Path("/proc").is_dir() else False
        return time.time() - self.updated > _STALE_SECONDS


class RunControl:
    """The driver's side: one status, written when it changes, and the number of workers that is asked for."""

    def __init__(self, folder: Path, iterations: int) -> None:
        """`folder`: of the run, which exists; what an earlier run was asked for is forgotten."""
        self._control, self._status = _control_file(folder), _status_file(folder)
        self._control.unlink(missing_ok=True)
        self._read_at: int | None = None
        self._wanted: int | None = None
        self._writing = threading.Lock()
        self.status = Status(iterations=iterations, host=socket.gethostname(), pid=os.getpid())
        self.say()

    def wanted_workers(self) -> int | None:
        """Rollout workers that `airls-ray scale` asked for, or None; a file that is no number is ignored."""
        try:
            changed = self._control.stat().st_mtime_ns
            if changed != self._read_at:
                self._read_at = changed
                self._wanted = int(json.loads(self._control.read_text(encoding="utf-8"))["workers"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            self._wanted = None
        return self._wanted

    def say(self, **changes: Any) -> None:
        """Change fields of the status and write it. It is no result: a failure to write it is ignored.

        In the asynchronous loop the thread that samples says something, too.
        """
        with self._writing, suppress(OSError):
            for name, value in changes.items():
                setattr(self.status, name, value)
            self.status.updated = time.time()
            part = self._status.with_name(files.TEMPORARY + self._status.name)
            part.write_text(files.to_json(asdict(self.status)) + "\n", encoding="utf-8")
            os.replace(part, self._status)


def ask_for_workers(folder: Path, workers: int) -> Status:
    """Ask a live run for so many rollout workers; returns its status.

    Raises:
        RunError: it is no run folder, the run is over, or the number lies outside its limits.
    """
    status = read_status(folder)
    if status.over or status.stale:
        how = status.phase if status.over else "without a driver"
        raise RunError(
            f"the run in {folder} is {how}, so it has no workers to scale: start or --resume it first"
        )
    low, high = _limits(folder)
    if not low <= workers <= high:
        raise RunError(
            f"{workers} rollout workers are asked for, but the run in {folder} was started with "
            f"rollout.min_workers={low} and rollout.max_workers={high}: choose a number between them"
        )
    files.write_text(_control_file(folder), files.to_json({"workers": workers}) + "\n")
    return status


def wait_for_workers(folder: Path, workers: int, seconds: float) -> bool:
    """Wait until a run has so many ready workers and no others; False if the time is over first."""
    until = time.monotonic() + seconds
    while True:
        status = read_status(folder)
        counts = status.workers or {}
        if counts.get("ready") == workers and sum(counts.values()) == workers:
            return True
        if time.monotonic() >= until or status.over:
            return False
        time.sleep(1.0)


def read_status(folder: Path) -> Status:
    """The status that a run's driver wrote last.

    Raises:
        RunError: there is none.
    """
    try:
        return Status(**json.loads(_status_file(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{folder} holds no run with a status: give the folder of a run that `airls-ray train` has begun"
        ) from error


def _limits(folder: Path) -> tuple[int, int]:
    from airls_ray.config.load import load_run_config

    rollout = load_run_config(folder).rollout
    return rollout.min_workers, rollout.max_workers


def _control_file(folder: Path) -> Path:
    return folder / "control.json"


def _status_file(folder: Path) -> Path:
    return folder / "status.json"
