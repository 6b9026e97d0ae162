"""The Linux calls that Python 3.11 does not offer: namespaces, mounts, Landlock, capabilities.

Every function raises OSError with the name of the call that failed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
from collections.abc import Sequence

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on all processors
_CAPABILITY_VERSION_3 = 0x2008_0522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

_EXECUTE, _WRITE, _READ, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ_ONLY = _EXECUTE | _READ | _READ_FOLDER
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ | _TRUNCATE
_FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many of the file rights a Landlock version knows."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, call: str) -> None:
    """Call prctl with one value."""
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), call)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; a change of user undoes it."""
    prctl(_PR_SET_PDEATHSIG, 9, "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")


def forbid_new_privileges() -> None:
    """Setuid files give nothing any more; Landlock and seccomp ask for it."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")


def allow_own_maps() -> None:
    """Make the own /proc files ours again after a change of user."""
    prctl(_PR_SET_DUMPABLE, 1, "prctl(PR_SET_DUMPABLE)")


def forbid_inspection() -> None:
    """Keep other processes of this user from reading this process's memory and environment."""
    prctl(_PR_SET_DUMPABLE, 0, "prctl(PR_SET_DUMPABLE)")


def unshare(flags: int) -> None:
    """Move this process (with CLONE_NEWPID: its children) into new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def map_own_user(user: int, group: int) -> None:
    """Give the new user namespace this one user and group, under their own numbers."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Call mount."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _checked(result, f"mount {target}")


def enter_root(folder: str) -> None:
    """Make `folder` (a mount) the root of this mount namespace and let go of the old one."""
    os.chdir(folder)
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root: no system call number for {platform.machine()}")
    _checked(_libc.syscall(ctypes.c_long(number), b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up all capabilities for good."""
    number = _CAPSET.get(platform.machine())
    if number is None:
        raise OSError(f"capset: no system call number for {platform.machine()}")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.syscall(ctypes.c_long(number), header, (ctypes.c_uint32 * 6)()), "capset")


def landlock_version() -> int:
    """Return the version of Landlock that the kernel has, 0 for none."""
    version = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(int(version), 0)


def landlock(readable: Sequence[str], writable: Sequence[str], version: int) -> None:
    """Forbid this process all files but those beneath `readable` and `writable`, where they exist.

    From version 4 on TCP is forbidden too, from version 6 on signals to processes outside.
    """
    every = (1 << _FILE_RIGHTS_BY_ABI.get(version, 16)) - 1
    rules = _Ruleset(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    number = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE), ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    ruleset = _checked(int(number), "landlock_create_ruleset")
    for path in readable:
        _allow(ruleset, path, _READ_ONLY & every)
    for path in writable:
        _allow(ruleset, path, every)
    _checked(
        int(_libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0))),
        "landlock_restrict_self",
    )
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # what is not there need not be allowed
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _FILE_RIGHTS
    rule = _Beneath(rights, descriptor)
    result = _libc.syscall(
        ctypes.c_long(_LANDLOCK_ADD),
        ctypes.c_int(ruleset),
        ctypes.c_int(1),
        ctypes.byref(rule),
        ctypes.c_uint32(0),
    )
    os.close(descriptor)
    _checked(int(result), f"landlock_add_rule {path}")
