"""Environments of their own for other people's programs: this one's packages, and theirs on top."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

_SECONDS = 1800


def python_with(name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment that has `requirements`; it is kept for the next time.

    The test is skipped where they cannot be installed.
    """
    folder = Path(tempfile.gettempdir()) / "airls-ray-peers" / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        packages = next((folder / "lib").iterdir()) / "site-packages"
        (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *requirements],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"{' '.join(requirements)} cannot be installed here: {done.stderr[-300:]}")
        ready.touch()
    return python
