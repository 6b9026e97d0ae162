"""Disk and memory that a run will need, compared with what there is before it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from airls_ray.config.schema import Config
from airls_ray.errors import ResourceError
from airls_ray.planning.memory import GIB
from airls_ray.planning.plan import Plan, make_plan, over_memory

_CGROUP = Path("/sys/fs/cgroup")


def check_room(config: Config) -> list[str]:
    """Compare what a run by `config` needs with this machine; returns warnings about its memory.

    Memory is compared where the command starts the cluster itself: elsewhere it is other machines'. It is an
    upper estimate, so too little of it is a warning. The size of the checkpoints is exact.

    Raises:
        ResourceError: the checkpoints do not fit the disk of the run folder.
    """
    plan = make_plan(config)
    require_disk(plan, _free(config.output))
    if config.ray.address is not None or "RAY_ADDRESS" in os.environ:
        return []
    found = list(main_memory(plan, available_memory()))
    if any(demand.gpus for demand in plan.demands):
        from airls_ray.doctor import gpus

        sizes = [mib * 2**20 for _, mib in gpus()]
        if sizes:
            found += over_memory(plan.placement, plan.memory, plan.engine, min(sizes))
    return found


def require_disk(plan: Plan, free: int) -> None:
    """Raise ResourceError where the checkpoints that lie there at once need more than `free` bytes."""
    each = plan.sizes.get("GiB per checkpoint")
    if each is None:  # the sizes of the model are not known
        return
    config, train = plan.config, plan.config.train
    made = -(-config.iterations // train.checkpoint_every)
    at_once = min(
        train.keep_checkpoints + train.keep_best + 1, made
    )  # a new one comes before the oldest goes
    folder = config.output / config.name
    there = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*") if path.is_file())
    needed = at_once * each * GIB - there
    if needed > free:
        raise ResourceError(
            f"the checkpoints of this run take {needed / GIB:.1f} GiB more in {folder} ({at_once} of "
            f"{each:.1f} GiB at once), and {free / GIB:.1f} GiB are free there: free some space, lower "
            "train.keep_checkpoints or train.keep_best, or set output= to a folder on another disk"
        )


def main_memory(plan: Plan, available: int | None) -> Iterator[str]:
    """Yield a warning where the processes of a run on this machine may need more than `available` bytes."""
    needed = plan.config.ray.object_store_gib * GIB
    for demand in plan.demands:
        one = plan.memory.get(demand.name)
        if one is not None:
            needed += demand.count * (one.host if demand.gpus else one.total)
        elif demand.name == "rollout worker" and plan.engine is not None and not demand.gpus:
            needed += demand.count * plan.engine.total
    if available is not None and needed > available:
        yield (
            f"the processes of this run may need {needed / GIB:.1f} GiB of main memory together, and "
            f"{available / GIB:.1f} GiB are free: close other programs, or lower tokens_per_microbatch and "
            "rollout.engine.kv_cache_gib"
        )


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Bytes of main memory that are free for a new process here: the kernel's, or the container's if less."""
    found: list[int] = []
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            found.append(int(limit) - int((cgroup / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass  # another system, or an older container: what was found counts
    return min(found, default=None)


def _free(folder: Path) -> int:
    """Bytes that are free where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
