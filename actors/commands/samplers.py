"""Rollout workers and a verifier for the time of a `with` block: commands that only sample and grade."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from actors.cluster import cluster, processes
from actors.cluster.cluster import Demand
from actors.cluster.starting import wait_for_start
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.workers import start_workers
from actors.train.start import start_verifier
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress


@dataclass(frozen=True)
class Samplers:
    """What samples and what grades."""

    pool: RolloutPool
    verifier: VerifierHandle


def sampler_demands(config: Config) -> list[Demand]:
    """What sampling and grading ask of the cluster."""
    return [
        Demand("rollout worker", config.rollout.resources, config.rollout.min_workers),
        Demand("verifier", config.verifier.resources),
    ]


@contextmanager
def started_samplers(config: Config, policy: str, progress: Progress) -> Iterator[Samplers]:
    """Start workers with the weights of `policy` and a verifier; all actors end with the block.

    Raises:
        UserError: too few resources, or a process that does not start.
    """
    cluster.require_resources(sampler_demands(config), config.ray.resources_deadline_seconds)
    workers = start_workers(config, policy, "sampler")
    verifier = start_verifier(config, policy)
    handle = VerifierHandle(verifier, config.train.deadline_seconds)
    try:
        starting = {"rollout worker": [worker.start.remote() for worker in workers]}
        starting["verifier"] = [verifier.start.remote()]
        wait_for_start(starting, config.ray.start_deadline_seconds, progress)
        yield Samplers(RolloutPool(workers, config.rollout.deadline_seconds), handle)
    except BaseException:
        for actor in (*workers, verifier):
            processes.kill(actor)
        raise
    handle.close()
    for worker in workers:
        processes.end(worker)
