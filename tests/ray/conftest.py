"""One small cluster for all Ray tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors import cluster
from airls_ray.config.schema import RayConfig


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[None]:
    cluster.connect(RayConfig(object_store_gib=0.25))
    yield
    cluster.disconnect()
