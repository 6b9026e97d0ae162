"""Marks each test by its folder; leaves tests/gpu out where there is no GPU, and tests/peers unless asked.
And fixtures of several folders."""

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
    not_asked = pytest.mark.skip(reason="other people's programs are run with -m peers")
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
        if folder == "gpu" and shutil.which("nvidia-smi") is None:
            item.add_marker(no_gpu)
        if folder == "peers" and "peers" not in config.option.markexpr:
            item.add_marker(not_asked)


@pytest.fixture(scope="module")
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's own: the text OWN of the module of tests."""
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(request.module.OWN)
    return path
