"""The adapter to Ray's actors: starting and ending them. What is inside one is `host`'s."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster import cluster, kept, placement
from actors.cluster.host import Handle, Host, Target, reference, target_name
from airls_ray.config.schema import Resources

# An idle OpenMP pool that spins takes the core from the stage that works (all stages share them).
_THREAD_ENVIRONMENT = {"KMP_BLOCKTIME": "1", "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
_FILL_SECONDS = 60.0
"""Longest time until a process that is kept has another object."""


def process_environment(resources: Resources, threads: int | None = None) -> dict[str, str]:
    """Environment of a process with these resources: `threads` unless they say how many, and no stray GPU."""
    count = resources.threads or threads or os.cpu_count() or 1
    variables = {**_THREAD_ENVIRONMENT, "OMP_NUM_THREADS": str(count)}
    if resources.gpus == 0:
        variables["CUDA_VISIBLE_DEVICES"] = ""  # Ray no longer hides the GPUs from actors without one
    return variables


def start_actor(
    target: Target,
    name: str,
    resources: Resources,
    *args: Any,
    environment: dict[str, str] | None = None,
    threads: int | None = None,
    room: Callable[[], Any] | None = None,
    concurrency: int | None = None,
    yields: bool = False,
    keep: bool = False,
) -> Handle:
    """Start an actor and return its handle at once; its class knows nothing of Ray.

    Args:
        target: the class, or `module:attribute` of one that this process need not import.
        name: unique in the cluster, or empty.
        resources: what it asks of Ray.
        args: of its constructor.
        environment: variables that are set before its class is imported.
        threads: OpenMP threads, unless `resources` says how many.
        room: reserves a placement group that is its room (not for a process that is kept).
        concurrency: calls that may run at once, in threads.
        yields: its imports let other processes of the machine go before.
        keep: `end` may keep its process for the next actor like it (inside `kept_processes`).
    """
    variables = {**process_environment(resources, threads), **(environment or {})}
    where = reference(target) if isinstance(target, type) else target
    keep = keep and kept.active() and not (resources.gpus or resources.custom)
    spec = (where, sorted(variables.items()), concurrency) if keep else None
    if spec is not None and (handle := _take_kept(spec, args)) is not None:
        return handle
    options: dict[str, Any] = {
        "num_cpus": 0.0 if keep else resources.cpus,
        "num_gpus": resources.gpus,
        "resources": dict(resources.custom) or None,
        "max_restarts": 0,
    }
    if name and not keep:  # the name of a process that is kept would be taken
        options["name"] = name
    if concurrency is not None:
        options["max_concurrency"] = concurrency
    shown = target_name(target)
    group = None if room is None or keep else room()
    try:
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, 0)
        process = _host(shown).options(**options).remote(where, variables, args, yields)
    except BaseException:  # nobody else knows of this room
        if group is not None:
            placement.release(group)
        raise
    return Handle(process, shown, spec, group)


def _take_kept(spec: kept.Spec, arguments: Sequence[Any]) -> Handle | None:
    """Give `arguments` to an idle process of that kind; None where there is none that can take them."""
    while (found := kept.take(spec)) is not None:
        refs = [found.emptied, found.handle.process.fill.remote(arguments)]
        try:
            cluster.fetch(refs, _FILL_SECONDS, f"another {found.handle.name}")
        except cluster.ACTOR_FAILURES:
            kill(found.handle)
        except BaseException:  # the object's own sentence on why it cannot be
            kill(found.handle)
            raise
        else:
            return found.handle
    return None


def end(handle: Handle) -> None:
    """End an actor that has done its work: its process, unless it is kept for another one."""
    if not kept.keep(handle):
        kill(handle)


def kill(handle: Handle) -> None:
    """End an actor's process, and give its room back."""
    kept.end(handle)


@lru_cache
def _host(name: str) -> Any:
    """`Host` as an actor class of that name, which the dashboard shows; Ray exports each of them once."""
    return ray.remote(type(name, (Host,), {"__module__": __name__}))
