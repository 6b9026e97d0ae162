"""Environments of their own: for other people's programs on top of this one's packages, or with nothing."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

_SECONDS = 1800


def python_with(name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment that has `requirements`; it is kept for the next time.

    The test is skipped where they cannot be installed.
    """
    return _made(name, sysconfig.get_path("purelib"), requirements)


def python_alone(name: str, *attempts: Sequence[str]) -> Path:
    """Return the interpreter of an environment that has what pip installs with the first of `attempts` that
    goes well, and nothing of this one; it is kept for the next time.

    The test is skipped where none goes well.
    """
    return _made(name, "", *attempts)


def _made(name: str, shared: str, *attempts: Sequence[str]) -> Path:
    folder = Path(tempfile.gettempdir()) / "airls-ray-peers" / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    packages = next((folder / "lib").iterdir()) / "site-packages"
    (packages / "shared.pth").write_text(shared + "\n")
    for attempt in attempts:
        done = pip(python, *attempt)
        if not done.returncode:
            ready.touch()
            return python
    pytest.skip(f"{' '.join(attempt)} cannot be installed here: {done.stderr[-300:]}")


def pip(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `pip install` in an environment."""
    command = [python, "-m", "pip", "install", "--quiet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
