"""Small learners, rollouts and batches that the tests of this folder learn from: fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import make_policy_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))
