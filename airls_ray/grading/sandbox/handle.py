"""A nursery as its owner sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from airls_ray.errors import ProcessLost, RunError
from airls_ray.grading.sandbox.limits import InForce
from airls_ray.grading.sandbox.nursery import PACKET_BYTES

_ROOT = str(Path(__file__).parents[3])
_CODE = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from airls_ray.grading.sandbox.nursery import main; "
    "del sys.path[0]; main()"
)
_START_SECONDS = 300.0
_END_SECONDS = 5.0


class NurseryHandle:
    """Starts a nursery, which ends with the thread that started it; gives it jobs one after the other."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Start it without waiting; programs find the modules `preload` already imported."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CODE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment | {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.socket.send(json.dumps({"preload": list(preload), "parent": os.getpid()}).encode())
        self.pid = self._process.pid

    def in_force(self) -> InForce:
        """Wait until it is ready and return what protects its programs; to be called once, first.

        Raises:
            RunError: it did not come up.
        """
        self.socket.settimeout(_START_SECONDS)
        try:
            packet = self.socket.recv(PACKET_BYTES)
        except (TimeoutError, ConnectionResetError):
            packet = b""
        self.socket.settimeout(None)
        if not packet:
            self.close()
            raise RunError("the sandbox did not start; its own message is on standard error")
        found = json.loads(packet)
        return InForce(**(found | {"notes": tuple(found["notes"])}))

    def start(self, job: dict[str, Any], files: Sequence[int]) -> None:
        """Start a job; `files` go with it in the order that its role expects.

        Raises:
            ProcessLost: the nursery is dead.
        """
        try:
            socket.send_fds(self.socket, [json.dumps(job).encode()], list(files))
        except OSError as error:
            raise ProcessLost("the process that starts sandboxed programs died") from error

    def kill_job(self) -> None:
        """Have the running job killed; `report` then comes soon."""
        with suppress(OSError):
            self.socket.send(b"kill")

    def report(self) -> dict[str, Any]:
        """Return how the job ended, waiting for it.

        Raises:
            ProcessLost: the nursery is dead.
        """
        try:
            packet = self.socket.recv(PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            raise ProcessLost("the process that starts sandboxed programs died")
        found: dict[str, Any] = json.loads(packet)
        return found

    def close(self) -> None:
        """End it and every process that it started."""
        self.socket.close()
        deadline = time.monotonic() + _END_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
