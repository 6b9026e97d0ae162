"""Marks each test by its folder; leaves out tests/gpu where there is no GPU, and tests/peers unless asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Many small tensors: a second thread only waits, and on a busy machine for long. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("ray", "e2e", "gpu", "peers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="there is no GPU")
    not_asked_for = pytest.mark.skip(reason="it installs others' packages: ask for it by -m peers")
    peers = "peers" in (config.option.markexpr or "")
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
        if folder == "gpu" and shutil.which("nvidia-smi") is None:
            item.add_marker(no_gpu)
        if not peers and item.get_closest_marker("peers"):
            item.add_marker(not_asked_for)
