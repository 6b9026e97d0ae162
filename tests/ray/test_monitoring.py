"""The metrics endpoint of a real cluster shows what a run sets."""

from __future__ import annotations

import math
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import ray

from actors.cluster.monitoring import Monitor

RUN = "monitored"


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with closing(Monitor(RUN, refresh_seconds=0.5)) as one:
        yield one


def series() -> dict[str, float]:
    """Values of this run's series at the node's endpoint, by name and tags (Ray's own tags left out)."""
    (node,) = [one for one in ray.nodes() if one["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, tags, value in re.findall(r"^(ray_airls_ray_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        own = dict(re.findall(r'(run|state|stage|phase)="([^"]*)"', tags))
        if own.pop("run") == RUN:
            found[" ".join([name, *own.values()])] = float(value)
    return found


def wait_for(condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The series as soon as the condition holds (reports come every 2 s, see conftest.py)."""
    until = time.monotonic() + 40
    while not condition(found := series()):
        assert time.monotonic() < until, found
        time.sleep(0.3)
    return found


def test_the_endpoint_shows_a_run_until_it_is_closed(monitor: Monitor) -> None:
    pool = {"pool/workers": 2, "pool/starting": 1, "pool/draining": 0, "pool/deaths": 1, "pool/requeued": 3}
    metrics = {
        **pool,
        "pool/dropped": 0,
        "staleness/max": 1,
        "outcome/mean": 0.25,
        "prm/step_auroc": 0.9,
        "policy/entropy": None,
        "time/rollout": 2.0,
    }
    monitor.record(6, {**metrics, "time/iteration": 5.0, "prm/made_up": -1.5}, "warmup")
    monitor.stage("rollout")
    monitor.stage("grade")
    assert wait_for(lambda now: "ray_airls_ray_stage grade" in now) == {
        "ray_airls_ray_iteration": 6,
        "ray_airls_ray_phase warmup": 1,
        "ray_airls_ray_phase train": 0,
        "ray_airls_ray_outcome_mean": 0.25,
        "ray_airls_ray_prm_step_auroc": 0.9,
        "ray_airls_ray_prm_made_up": -1.5,
        "ray_airls_ray_stage_seconds rollout": 2.0,
        "ray_airls_ray_time_iteration": 5.0,
        "ray_airls_ray_stage rollout": 0,
        "ray_airls_ray_stage grade": 1,
        "ray_airls_ray_rollout_workers starting": 1,
        "ray_airls_ray_rollout_workers ready": 2,
        "ray_airls_ray_rollout_workers draining": 0,
        "ray_airls_ray_rollout_worker_deaths_total": 1,
        "ray_airls_ray_groups_requeued_total": 3,
        "ray_airls_ray_staleness_max": 1,
    }
    monitor.record(7, {"prm/step_auroc": math.nan}, "train")
    time.sleep(5)  # more than the two report intervals after which Ray forgets what nobody sets
    after = wait_for(lambda now: "ray_airls_ray_prm_step_auroc" not in now)
    assert (after["ray_airls_ray_iteration"], after["ray_airls_ray_outcome_mean"]) == (7, 0.25)
    monitor.close()
    wait_for(lambda now: "ray_airls_ray_iteration" not in now)
