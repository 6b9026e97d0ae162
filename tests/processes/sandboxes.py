"""What the tests of the sandbox share: small limits, one sandbox, and checks of what is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airls_ray.errors import ConfigError
from airls_ray.grading.sandbox.box import Exam, Sandbox
from airls_ray.grading.sandbox.limits import Limits

SMALL = Limits(wall_seconds=10, cpu_seconds=2, memory_mib=256, processes=20, file_mib=10, output_kib=1024)
ADD = Exam("call", [{"arguments": [1, 2], "expected": 3}, {"arguments": [5, 5], "expected": 10}], "add")
ADD_ASSERTS = Exam("assert", ["assert add(1, 2) == 3", "assert candidate(5, 5) == 10"], "add")
ADD_MAIN = Exam("stdin", [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10"}])
RIGHT = "def add(a, b):\n    return a + b\n"


def protected_sandbox(limits: Limits = SMALL) -> Iterator[Sandbox]:
    """Yield a sandbox with everything in force; where the machine lacks something the test is left out."""
    try:
        sandbox = Sandbox(limits)
    except ConfigError as error:
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


def host_processes(mark: str) -> list[int]:
    """Return processes of this machine whose command line or environment holds `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(int(folder.name))
    return found


def descendants(pid: int) -> set[int]:
    """Return all living descendants of a process."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(text.rpartition(")")[2].split()[1])
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found
