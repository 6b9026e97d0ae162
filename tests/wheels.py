"""The project's wheel, built as an installer builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BUILD = "import setuptools.build_meta as build; print(build.build_wheel('dist'))"


def build_wheel(folder: Path) -> Path:
    """Build from a copy in `folder`, since a build leaves its folders where it runs."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("airls_ray", "actors", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
    done = subprocess.run([sys.executable, "-c", _BUILD], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "dist" / done.stdout.split()[-1]
