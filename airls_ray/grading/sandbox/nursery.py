"""A process that starts programs in the sandbox: it forks, so that none pays for the start of Python.

Started as `python -I -c ... FD`, where FD is a socket of packets. First the configuration comes, and what
is in force goes back. Then one job at a time: a packet with the job and its files comes, a packet that
says how it ended goes back; between them the packet `kill` ends it. When a job is over, every process that
it started is dead.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import asdict
from types import FrameType
from typing import Any

from airls_ray.grading.sandbox import isolation, judge, kernel, program
from airls_ray.grading.sandbox.isolation import Shell
from airls_ray.grading.sandbox.limits import Limits

PACKET_BYTES = 1 << 16
_JOB, _CHANNEL, _VERDICTS, _REPORT = 3, 4, 5, 6
_FREE = 64
"""Descriptors from here on are out of the way while the first few are put in place."""


class Nursery:
    """See the module's docstring."""

    def __init__(self, control: socket.socket) -> None:
        """Serve the other end of `control`."""
        self._control = control
        self._woken, writer = os.pipe()
        for end in (self._woken, writer):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, which then ends us

    def serve(self) -> None:
        """Work until the other end is closed."""
        settings = json.loads(self._control.recv(PACKET_BYTES))
        for name in settings["preload"]:
            importlib.import_module(name)
        kernel.die_with_parent()
        if os.getppid() != settings["parent"]:
            return
        kernel.adopt_orphans()
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        self._shell = isolation.enter()
        kernel.die_with_parent()  # once more: new privileges may have undone it
        gc.collect()
        gc.freeze()
        try:
            self._control.send(json.dumps(asdict(self._shell.in_force())).encode())
            while True:
                packet, files, _, _ = socket.recv_fds(self._control, PACKET_BYTES, 8)
                if not packet:
                    return
                if packet == b"kill":  # it came too late for its job
                    continue
                self._control.send(json.dumps(self._run(json.loads(packet), files)).encode())
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            isolation.leave(self._shell)

    def _run(self, job: dict[str, Any], files: list[int]) -> dict[str, Any]:
        shell, limits = self._shell, Limits(**job["limits"])
        work = shell.base if shell.namespaces else _new_folder(shell)
        reader, report = os.pipe()
        child = os.fork()
        if child == 0:
            _child(shell, limits, work, job["role"], files, report)
        os.close(report)
        for descriptor in files:
            os.close(descriptor)
        self._wait(child)
        _end_descendants(self._children)
        if not shell.namespaces:
            isolation.remove(work)
        with open(reader, encoding="utf-8") as lines:
            found: dict[str, Any] = {}
            for line in lines:
                found.update(json.loads(line))
        return found

    def _wait(self, child: int) -> None:
        """Return when `child` has ended; kill it if the owner says so or has gone."""
        watched = [self._woken, self._control.fileno()]
        while True:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            ready, _, _ = select.select(watched, [], [])
            if self._control.fileno() in ready:
                watched = watched if self._control.recv(PACKET_BYTES) else [self._woken]
                os.kill(child, signal.SIGKILL)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler is needed for the wake-up; there is nothing to do in it."""


def _new_folder(shell: Shell) -> str:
    folder = tempfile.mkdtemp(dir=shell.base)
    if shell.user is not None:
        shutil.chown(folder, shell.user, shell.user)
    return folder


def _end_descendants(children: int) -> None:
    """Kill and wait for every process that is left; those whose parent died are our children by now.

    `children`: the file of /proc that lists them, opened before /proc was left behind.
    """
    while True:
        for pid in os.pread(children, 1 << 16, 0).split():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _child(shell: Shell, limits: Limits, work: str, role: str, files: list[int], report: int) -> None:
    """In the forked process: separate, shut in, run the role; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        kernel.die_with_parent()
        if shell.namespaces:
            isolation.separate(shell, limits)
        inner = os.fork()
        if inner:
            for descriptor in files:
                os.close(descriptor)
            _, status, usage = os.wait4(inner, 0)
            record = {
                "status": status,
                "cpu": usage.ru_utime + usage.ru_stime,
                "max_rss_kib": usage.ru_maxrss,
            }
            os.write(report, json.dumps(record).encode() + b"\n")
            os._exit(0)
        _arrange(role, files, report)
        report = _REPORT
        isolation.shut_in(shell, limits, work)
    except BaseException as error:
        os.write(report, json.dumps({"error": str(error)[:400]}).encode() + b"\n")
        os._exit(1)
    try:
        os.close(_REPORT)
        code = _play(role)
    except MemoryError:
        code = program.MEMORY_EXIT
    except BaseException:
        traceback.print_exc()  # goes to the output of the job
    finally:
        os._exit(code)


def _arrange(role: str, files: list[int], report: int) -> None:
    """Put the files of the job where the role expects them and close everything else."""
    null = os.open("/dev/null", os.O_RDWR)
    output, job, *others = [fcntl.fcntl(one, fcntl.F_DUPFD, _FREE) for one in files]
    places = {1: output, 2: null if role == "main" else output, _JOB: job, _REPORT: report}
    if role == "main":
        places[0] = others[0]
    else:
        places |= {0: null, _CHANNEL: others[0]}
    if role == "tests":
        places[_VERDICTS] = others[1]
    places = {place: fcntl.fcntl(one, fcntl.F_DUPFD, _FREE) for place, one in places.items()}
    for place in range(_REPORT + 1):
        if place in places:
            os.dup2(places[place], place)
        else:
            with suppress(OSError):
                os.close(place)
    os.closerange(_REPORT + 1, os.sysconf("SC_OPEN_MAX"))


def _play(role: str) -> int:
    job = _read_job()
    if role == "main":
        return program.run_main(job)
    program.silence()
    if role == "tests":
        return judge.Judge(job, _CHANNEL, _VERDICTS).run()
    return program.ProgramServer(_CHANNEL).run(job)


def _read_job() -> dict[str, Any]:
    with open(_JOB, encoding="utf-8") as file:
        job: dict[str, Any] = json.load(file)
    return job


def main() -> None:
    """Serve on the descriptor that the command line names.

    A grader that starts a nursery in the middle of its work has a limit of CPU time for that. The nursery
    lives on, so it takes no part of it: it ends with its owner, and every program has a limit of its own.
    """
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
