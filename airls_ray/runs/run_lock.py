"""One driver to a run folder: a file lock, and a heartbeat for storage on which locks do not reach.

`run.lock` is locked by the kernel (`flock`) and free at once when its process is gone, however it ended.
Network storage may not pass locks between machines; there `run.heartbeat` counts, which its owner renews and
which is dead after `STALE_SECONDS`. Nothing has to be removed by hand.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from airls_ray.errors import RunError

LOCK, HEARTBEAT = "run.lock", "run.heartbeat"
BEAT_SECONDS = 20.0
"""Between two signs of life."""
STALE_SECONDS = 180.0
"""Without a sign of life for so long an owner on another machine is taken for dead."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class RunLock:
    """Context: this process owns `folder` inside it.

    Raises:
        RunError: at the start, another driver owns the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, beat_seconds: float = BEAT_SECONDS) -> None:
        """Nothing is touched before the context is entered; it makes the folder if there is none."""
        self._folder = folder
        self._beat_seconds = beat_seconds
        self._token = uuid.uuid4().hex
        self._file: int | None = None
        self._locked = False
        self._made = False
        self._over = threading.Event()
        self._thief: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        """Take the lock and begin to give signs of life."""
        self._made = not self._folder.exists()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            self._let_go()
            raise RunError(
                f"cannot write to the run folder {self._folder} ({error.strerror}): choose another output "
                "folder"
            ) from error
        except RunError:
            self._let_go()
            raise
        self._thread = threading.Thread(target=self._beat, name="run-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the folder free; one that holds nothing and was made here is removed."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        with suppress(OSError):  # on storage that failed it gets stale
            if self._owner().get("token") == self._token:
                (self._folder / HEARTBEAT).unlink(missing_ok=True)
        self._let_go()

    def check(self) -> None:
        """Say when another driver has taken the folder, as it may when this process slept for minutes.

        Raises:
            RunError: this process must write nothing more.
        """
        if self._thief is not None:
            raise RunError(
                f"{self._folder} was taken over by {_who(self._thief)}, since this process had given no sign "
                f"of life for {STALE_SECONDS:g} s: it stops here, and the other one goes on"
            )

    def _take(self) -> None:
        self._locked = self._flock()
        owner = self._owner()
        here = owner.get("machine") == _machine()
        if owner and not (here and (self._locked or not _alive(owner))):
            # The owner is on another machine, or where locks do not work: only its signs of life count.
            age = max(time.time() - float(owner.get("time", 0.0)), 0.0)
            if age < STALE_SECONDS:
                raise self._taken(owner, f" (unless it is gone: then in {STALE_SECONDS - age:.0f} s)")
        for leftover in self._folder.glob(f".{HEARTBEAT}-*"):
            leftover.unlink(missing_ok=True)
        if owner:
            (self._folder / HEARTBEAT).unlink(missing_ok=True)
        try:  # exclusive creation is atomic on network storage, too
            with (self._folder / HEARTBEAT).open("x", encoding="utf-8") as file:
                file.write(self._record())
        except FileExistsError:
            raise self._taken(self._owner()) from None

    def _flock(self) -> bool:
        """Lock `run.lock`; False where this storage has no locks."""
        path = self._folder / LOCK
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._taken(self._owner()) from None
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                raise
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(self._file).st_ino:
                    return True
            os.close(self._file)  # the owner before removed the file between our two steps

    def _let_go(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                # Removed while it is locked, so that nobody locks a file that is about to go.
                if self._locked:
                    (self._folder / LOCK).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None
        if self._made:
            with suppress(OSError):  # it holds a run
                self._folder.rmdir()

    def _beat(self) -> None:
        while not self._over.wait(self._beat_seconds):
            with suppress(OSError):  # storage that fails for a while; what else is written there will say so
                owner = self._owner()
                if owner and owner.get("token") != self._token:
                    self._thief = owner
                    return
                temporary = self._folder / f".{HEARTBEAT}-{self._token}"
                temporary.write_text(self._record(), encoding="utf-8")
                os.replace(temporary, self._folder / HEARTBEAT)

    def _owner(self) -> dict[str, Any]:
        """The record of the folder's owner; empty where there is none or it is no record."""
        try:
            record = json.loads((self._folder / HEARTBEAT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _record(self) -> str:
        return json.dumps(
            {
                "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "time": time.time(),
                "token": self._token,
            }
        )  # fmt: skip

    def _taken(self, owner: dict[str, Any], when: str = "") -> RunError:
        return RunError(
            f"{self._folder} is in use by {_who(owner)}: wait until that run is over{when} or choose another "
            "name"
        )


def _who(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')}"


def _machine() -> str:
    """Name and boot of this machine: containers may share a name, and process ids start anew at a boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


def _alive(owner: dict[str, Any]) -> bool:
    try:
        os.kill(int(owner["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
