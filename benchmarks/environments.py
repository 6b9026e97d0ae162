"""Environments of their own for other people's programs: `runs/benchmarks/NAME`, made at the first call."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from importlib.metadata import version

from common import RUNS


def own_python(name: str, wanted: Sequence[str], imports: str) -> str:
    """Return the interpreter of an environment that has `wanted` beside this one's PyTorch and transformers.

    `imports`: modules, with commas, that are imported once, which writes their byte code.
    """
    folder = RUNS / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        torch = version("torch").partition("+")[0]
        same = (f"torch=={torch}", f"transformers=={version('transformers')}")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *same, *wanted], check=True)
        subprocess.run([str(python), "-c", f"import {imports}"], check=True, env=with_byte_code())
        (folder / "ready").touch()
    return str(python)


def trl_python() -> str:
    """The interpreter of TRL's environment."""
    return own_python("trl", ("trl", "datasets", "accelerate"), "trl, datasets")


def version_in(python: str, package: str) -> str:
    """The version of a package in an interpreter's environment."""
    code = f"from importlib.metadata import version; print(version('{package}'))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def with_byte_code() -> dict[str, str]:
    """The environment without the variable that makes every import compile anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
