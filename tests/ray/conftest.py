"""One small cluster for all Ray tests of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from actors.cluster import cluster, processes
from actors.cluster.kept import kept_processes
from airls_ray.config.schema import RayConfig


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """Actors that a test adds are ended with it."""
    actors: list[Any] = []
    yield actors
    for actor in actors:
        processes.kill(actor)


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[None]:
    # Instead of 10 s, since test_monitoring.py waits for it (Ray's own names have small letters).
    os.environ["RAY_metrics_report_interval_ms"] = "2000"  # noqa: SIM112
    cluster.connect(RayConfig(object_store_gib=0.25))
    with kept_processes():
        yield
    cluster.disconnect()
