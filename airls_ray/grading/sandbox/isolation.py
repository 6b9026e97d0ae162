"""What shuts a program in: found out once for a nursery, then put on every process that it starts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airls_ray.grading.sandbox import kernel, seccomp
from airls_ray.grading.sandbox.limits import InForce, Limits

WORK = "/sandbox"
"""The work folder in a root of our own."""
_NAMESPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)
_NOBODY = 65534
_FIRST_USER = 1 << 30
"""Users that no system gives out; ours is this and the process id, so that each nursery has its own."""
_READABLE = (
    *("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
)
_KEPT_MOUNT_FLAGS = kernel.MS_NODEV | 8 | 1024 | 2048 | (1 << 21)
"""nodev, noexec, noatime, nodiratime, relatime: a user namespace may not take them off."""


@dataclass(frozen=True)
class Shell:
    """What one nursery puts around its programs."""

    namespaces: bool = False
    """Own process ids, network, mounts and a root with nothing but Python, for every program."""
    user: int | None = None
    """User that programs run as; None: that of the nursery."""
    landlock: int = 0
    """Version of Landlock, 0 without."""
    seccomp: bool = False
    base: str = WORK
    """Folder in which work folders lie, or with namespaces the work folder itself."""
    notes: tuple[str, ...] = ()

    def in_force(self) -> InForce:
        """Say it in words."""
        root = os.geteuid() == 0 and self.user is None
        network = [
            name for name, on in (("own network namespace", self.namespaces), ("seccomp", self.seccomp)) if on
        ]
        landlock = f"Landlock {self.landlock}"
        files = [name for name, on in (("own root", self.namespaces), (landlock, self.landlock)) if on]
        guarded = self.seccomp and not root
        processes = "own process ids" if self.namespaces else "seccomp against signals" if guarded else None
        if root:
            processes = None  # the kernel counts no processes of root
        return InForce(" and ".join(network) or None, " and ".join(files) or None, processes, self.notes)


def enter() -> Shell:
    """Find out what this machine allows and move this process, which starts the programs, into place."""
    notes: list[str] = []
    shell = Shell(landlock=kernel.landlock_version(), seccomp=_works(lambda: seccomp.forbid(False), notes))
    parent = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = tempfile.mkdtemp(prefix="airls-ray-sandbox-")
    if _works(lambda: _own_root(folder), notes):
        _own_root(folder)
        os.rmdir(os.path.basename(folder), dir_fd=parent)
        shell = replace(shell, namespaces=True)
    else:
        os.chmod(folder, 0o711)
        shell = replace(shell, base=folder)
    os.close(parent)
    if shell.landlock and not _works(lambda: _forbid_files(shell, shell.base), notes):
        shell = replace(shell, landlock=0)
    if os.geteuid() == 0:
        shell = replace(shell, user=_unprivileged_user(notes))
    kernel.forbid_inspection()
    return replace(shell, notes=tuple(dict.fromkeys(notes)))


def _unprivileged_user(notes: list[str]) -> int | None:
    for user in (_FIRST_USER + os.getpid(), _NOBODY):
        if _works(partial(_become, user), notes):
            return user
    return None


def leave(shell: Shell) -> None:
    """Remove what `enter` left on the disk."""
    if not shell.namespaces:
        remove(shell.base)


def remove(folder: str) -> None:
    """Remove a folder of a program, however deep it is."""
    subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)


def _works(attempt: Callable[[], object], notes: list[str]) -> bool:
    """Whether `attempt` works, tried in a child process; if not, note why."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            attempt()
            os._exit(0)
        except OSError as error:
            os.write(writer, str(error).encode()[:400])
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as text:
        reason = text.read()
    if os.waitpid(child, 0)[1] == 0:
        return True
    notes.append(reason or "a probe died")
    return False


# ------------------------------------------------------------------------------------ the own root
def _own_root(folder: str) -> None:
    """Move this process into a mount namespace whose root, mounted at `folder`, holds Python alone.

    Without privileges a user namespace gives those that this takes, and those for the namespaces of the
    programs. The root is read-only in the end, so that no program finds anything of an earlier one.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_own_user(user, group)
    kernel.unshare(_NAMESPACES & ~kernel.CLONE_NEWPID)  # the others only show that they are allowed
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("sandbox", folder, "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    for path in dict.fromkeys([*_READABLE, *_python_folders()]):
        _show(path, folder)
    os.mkdir(folder + WORK, 0o755)
    kernel.enter_root(folder)
    _remount_read_only("/")


def _python_folders() -> list[str]:
    return [folder for folder in dict.fromkeys([sys.base_prefix, sys.prefix]) if folder != "/usr"]


def _show(path: str, root: str) -> None:
    """Make `path` visible beneath `root`, read-only (a device may still be written to)."""
    if not os.path.exists(path):
        return
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "x"):
            pass
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)
    if not path.startswith("/dev/"):
        _remount_read_only(target)


def _remount_read_only(target: str) -> None:
    kept = os.statvfs(target).f_flag & _KEPT_MOUNT_FLAGS
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kept
    kernel.mount("none", target, None, flags)


# ------------------------------------------------------------------------- around every program
def separate(shell: Shell, limits: Limits) -> None:
    """Give us an own network and work folder, and our next child its own process ids as well."""
    kernel.unshare(_NAMESPACES)
    user = os.geteuid() if shell.user is None else shell.user
    options = f"mode=700,size={limits.file_mib}m,nr_inodes=4096,uid={user},gid={user}"
    if shell.user is None:
        options = options.rpartition(",uid=")[0]
    kernel.mount("work", WORK, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def shut_in(shell: Shell, limits: Limits, work: str) -> None:
    """Put limits and filters on this process for good; `work` becomes its folder."""
    os.chdir(work)
    _clean_environment(work)
    for kind, value in _resources(limits):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    if shell.user is not None:
        _become(shell.user)
    if shell.namespaces:
        kernel.drop_capabilities()
    kernel.forbid_new_privileges()
    if shell.landlock:
        _forbid_files(shell, work)
    if shell.seccomp:
        seccomp.forbid(forbid_signals=not shell.namespaces)
    kernel.die_with_parent()


def _resources(limits: Limits) -> list[tuple[int, int]]:
    return [
        (resource.RLIMIT_AS, limits.memory_mib << 20),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_mib << 20),
        (resource.RLIMIT_NOFILE, limits.open_files),
        # The nursery and the process that waits for this one may count as well.
        (resource.RLIMIT_NPROC, limits.processes + 2),
        (resource.RLIMIT_CORE, 0),
    ]


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    with open(os.__file__, "rb"):  # where Python itself cannot be read, nothing can be imported
        pass


def _forbid_files(shell: Shell, work: str) -> None:
    kernel.forbid_new_privileges()
    kernel.landlock([*_READABLE, *_python_folders()], [work, "/dev/null"], shell.landlock)


def _clean_environment(work: str) -> None:
    kept: dict[str, Any] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    os.environ.clear()
    os.environ.update(kept, HOME=work, TMPDIR=work, OMP_NUM_THREADS="1")
    tempfile.tempdir = None
