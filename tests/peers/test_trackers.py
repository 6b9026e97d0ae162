"""The built-in trackers on their packages, which are installed into environments of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.peers.environments import python_with

PACKAGES = {
    "trackio": ("trackio==0.43.0",),
    "mlflow": ("mlflow-skinny==3.17.2", "sqlalchemy>=2", "alembic"),
    "wandb": ("wandb==0.31.0",),
}
"""As the extra `trackers` has them."""


@pytest.mark.parametrize("name", PACKAGES)
def test_a_run_and_its_resume_are_one_run_of_the_tracker_without_a_network(name: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("trackers.py")
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(script.parents[2]),
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HTTPS_PROXY": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [python_with(name, *PACKAGES[name]), str(script), name, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {"said": [], "points": [[1, 0.5], [2, 1.0], [3, 1.5]]}
