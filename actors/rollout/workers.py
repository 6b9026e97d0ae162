"""Starting rollout workers: a fixed number for a measurement, or a fleet that comes and goes for a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from actors.cluster import processes
from actors.cluster.cluster import Demand
from actors.rollout.elastic_fleet import ElasticFleet, FleetEvents, Launch
from actors.rollout.vllm_engine import engine_environment
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.errors import RunError
from airls_ray.runs.run_control import RunControl

_POLL_SECONDS = 0.05


def start_workers(config: Config, model: str, name: str = "rollout") -> list[Any]:
    """Rollout workers `NAME-0`, ..., not yet started: as many as are needed, for work that none joins and
    that brings no new weights."""
    launch = worker_launch(without_adapters(config), model)
    return [launch.actor(f"{name}-{index}", None) for index in range(config.rollout.min_workers)]


def without_adapters(config: Config) -> Config:
    """The same for engines that keep the weights which they load: room for adapters would slow them."""
    engine = config.rollout.engine.model_copy(update={"lora": "merged"})
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"engine": engine})})


def worker_launch(config: Config, model: str) -> Launch:
    """How a rollout worker is started."""
    resources = config.rollout.resources
    threads = resources.threads or threads_each(config.rollout.min_workers)
    eager_on_cpu = config.rollout.engine.enforce_eager and resources.gpus == 0
    environment = engine_environment(threads, compiles=not eager_on_cpu)

    def actor(name: str, room: Callable[[], Any] | None) -> Any:
        return processes.start_actor(
            "actors.rollout.rollout_worker:RolloutWorker", name, resources, name, config, model,
            environment=environment, threads=threads, room=room, keep=True,
            concurrency=2 if config.rollout.interruptible else None,  # weights come while it samples
        )  # fmt: skip

    return Launch(Demand("rollout worker", resources).bundle(), actor)


def make_fleet(config: Config, model: str, progress: Progress, control: RunControl | None) -> ElasticFleet:
    """The run's workers, none of which is started yet."""
    rollout = config.rollout
    events = FleetEvents(progress.say, lambda name, seconds: progress.phase_done(f"{name} ready", seconds))
    if control is not None:
        events = replace(
            events, wanted=control.wanted_workers, changed=lambda counts: control.say(workers=counts)
        )
    return ElasticFleet(
        worker_launch(config, model),
        rollout.min_workers,
        rollout.max_workers,
        config.failures,
        start_seconds=config.ray.start_deadline_seconds,
        events=events,
        joins_at_sync=rollout.engine.weight_transfer == "nccl",
    )


def wait_for_workers(fleet: ElasticFleet, config: Config) -> None:
    """Wait until as many workers are ready as the run needs; the others join it later.

    Raises:
        RunError: the deadline passed, or too many died.
    """
    until = time.monotonic() + config.ray.start_deadline_seconds
    while len(fleet.ready) < fleet.minimum:
        fleet.step(busy=())
        if time.monotonic() > until:
            raise RunError(
                f"{len(fleet.ready)} of {fleet.minimum} rollout workers came up within "
                f"{config.ray.start_deadline_seconds:g} s; look into their logs, or raise "
                "ray.start_deadline_seconds"
            )
        time.sleep(_POLL_SECONDS)


def threads_each(processes: int) -> int:
    """All cores of this node shared by the processes of one stage (stages run one at a time)."""
    return max(1, (os.cpu_count() or 1) // processes)
