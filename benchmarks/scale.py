"""The pool, the loop and the data plane with up to 512 simulated workers on Ray, and the asynchronous loop's
overlap; `virtual_scale.py` goes on to 2,048 without Ray, in virtual time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from simulated_workers import hosted_workers
from simulation import (
    SimulatedRun,
    StageSeconds,
    memory_mib,
    run_loop,
    simulated_config,
    tokenizer_folder,
)

if TYPE_CHECKING:
    from actors.rollout.rollout_pool import RolloutPool
    from airls_ray.console.progress import Progress

WORKERS_PER_NODE = 8
"""As of a node with eight GPUs; where a worker is said to be decides who calls it."""
HOSTS = 4
"""Processes that the simulated workers share."""
STAGES = StageSeconds(rollout=10.0, grade=0.5, prm_update=1.0, prm_score=0.5, policy_update=2.5)
"""A quick cluster: with 7B models these take minutes."""
SYNC_ROUNDS = 7
"""Syncs of either size, in turns."""
_PAGE = 4096
"""Bytes of the smaller weights."""
SKIP = 1
"""First iterations that are not counted: worker processes and caches warm up."""


def main(
    workers: Annotated[
        list[int] | None, typer.Option(help="Simulated workers (may be repeated); by default 8 to 512.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=3, help="Iterations at each size.")] = 4,
    faster: Annotated[float, typer.Option(help="Divide the seconds of all stages by this.")] = 1.0,
    weights_mib: Annotated[float, typer.Option(help="Size of the weights of a sync, in MiB.")] = 64.0,
) -> None:
    """Measure rollouts per second, the driver's CPU and memory, and a weight sync at each size.

    "Of linear" is the rate of a worker against that with the fewest workers, "of the stages" the seconds of
    the stages one after the other against those of an iteration. Processor time of the simulated workers
    counts against both figures: all of them share this machine's cores.

    A sync is measured again on its own with weights of that size and, in turns, of one page: the second is
    what the calls cost, and the difference what the weights do. Then with the driver calling every worker
    itself, instead of one on each node of eight. Seconds are those of all calls on this machine's cores; what
    a cluster would wait for is the driver's processor time and one node's calls.

    Then the same stages one after the other and overlapped (`train.max_staleness` 1 and 2).
    """
    from actors.train.async_loop import train_async
    from actors.train.loop import train
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    seconds = STAGES.faster(faster)
    even = StageSeconds(rollout=2.0, grade=0.1, prm_update=0.8, prm_score=0.2, policy_update=0.9)
    folder = Path(tempfile.mkdtemp(prefix="airls_scale_"))
    try:
        with connected(load_config(None, ["ray.object_store_gib=2"])):
            sizes = [
                at_size(count, iterations, seconds, int(weights_mib * 2**20), folder, progress)
                for count in workers or (8, 32, 128, 256, 512)
            ]
            for row in sizes:
                per_worker = [one["rollouts_per_second"] / one["workers"] for one in (row, sizes[0])]
                row["of_linear"] = per_worker[0] / per_worker[1]
            loops = [
                overlap(name, loop, staleness, even, folder, progress)
                for name, loop, staleness in (
                    ("synchronous", train, 0),
                    ("asynchronous", train_async, 1),
                    ("asynchronous", train_async, 2),
                )
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    columns = (
        "workers",
        "rollouts/s",
        "of linear",
        "of the stages",
        "driver, cores",
        "driver, MiB more",
        "sync, s",
        "its calls, s",
        "its weights, s",
        "driver's part, ms",
        "without nodes, ms",
    )
    rows = [
        (
            row["workers"], f"{row['rollouts_per_second']:.0f}", f"{row['of_linear']:.3f}",
            f"{row['of_stages']:.3f}", f"{row['driver_cores']:.2f}", f"{row['driver_mib_more']:.1f}",
            f"{row['sync_seconds']:.2f}", f"{row['sync_alone']['by_node']['calls']:.3f}",
            f"{row['sync_alone']['by_node']['weights']:.3f}",
            *(f"{1e3 * row['sync_alone'][way]['driver']:.1f}" for way in ("by_node", "by_worker")),
        )
        for row in sizes
    ]  # fmt: skip
    progress.table("Simulated workers under the real loop", rows, columns)
    progress.table(
        "Stages of the asynchronous loop",
        [
            (
                row["loop"],
                row["max_staleness"],
                f"{row['seconds']:.2f}",
                f"{row['of_longest']:.3f}",
                row["oldest"],
            )
            for row in loops
        ],
        ("loop", "max_staleness", "s an iteration", "of the longest stage", "oldest rollout, updates"),
    )
    path = common.write_result("scale", {"sizes": sizes, "loops": loops, "stages": vars(seconds)})
    progress.say(f"written to {path}")


def at_size(
    count: int, iterations: int, seconds: StageSeconds, weight_bytes: int, folder: Path, progress: Progress
) -> dict[str, Any]:
    """The synchronous loop with so many workers, each with four groups of eight rollouts an iteration."""
    from actors.cluster import processes
    from actors.rollout.fleet import FixedFleet
    from actors.rollout.rollout_pool import RolloutPool
    from actors.train.loop import train

    config = simulated_config(folder / str(count), count, iterations)
    tokens = tokenizer_folder(folder / f"tokenizer_{count}", config)
    handles = hosted_workers(config, tokens, seconds.rollout, count, HOSTS)
    nodes = [f"node-{number // WORKERS_PER_NODE}" for number in range(count)]
    pool = RolloutPool(FixedFleet(handles, nodes), 300)
    run = SimulatedRun(config, seconds, weight_bytes)
    before, cpu, start = memory_mib(), time.process_time(), time.perf_counter()
    metrics = run_loop(run, pool, folder / f"run_{count}", train)
    cores = (time.process_time() - cpu) / (time.perf_counter() - start)
    more = memory_mib() - before  # the next line puts weights of the driver's own into the store
    alone = sync_alone({"by_node": pool, "by_worker": RolloutPool(handles, 300)}, weight_bytes)
    for host in {handle.host for handle in handles}:
        processes.kill(host)
    counted = metrics[SKIP:]
    whole = median(line["time/iteration"] for line in counted)
    sync = median(line["time/sync"] for line in counted)
    rollouts = config.train.problems_per_iteration * config.train.rollouts_per_problem
    progress.say(
        f"{count} workers: {rollouts / whole:.0f} rollouts/s, {seconds.all / whole:.3f} of the stages"
    )
    return {
        "workers": count,
        "rollouts_per_second": rollouts / whole,
        "of_stages": seconds.all / whole,
        "stage_seconds": {
            name.removeprefix("time/"): median(line[name] for line in counted)
            for name in counted[0]
            if name.startswith("time/")
        },
        "driver_cores": cores,
        "driver_mib_more": more,
        "sync_seconds": sync,
        "sync_alone": alone,
        "weight_mib": weight_bytes / 2**20,
    }


def sync_alone(pools: Mapping[str, RolloutPool], weight_bytes: int) -> dict[str, dict[str, float]]:
    """Medians of what it takes to give all workers weights that are in the object store, by each pool.

    Returns:
        For each pool `calls`: seconds with one page of weights; `driver`: the driver's processor seconds of
        these; `weights`: seconds that `weight_bytes` of them take beyond.
    """
    import numpy as np

    from actors.cluster import cluster
    from airls_ray.weights import WeightBuffer

    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    driver: dict[str, list[float]] = defaultdict(list)
    for version in range(SYNC_ROUNDS):
        for size in (_PAGE, weight_bytes):
            for name, pool in pools.items():
                data = np.zeros(size, np.uint8)
                weights = cluster.put(WeightBuffer(("w",), ("uint8",), ((size,),), (0,), data, version))
                start, cpu = time.perf_counter(), time.process_time()
                pool.update_weights(weights, version)
                seconds[name, size].append(time.perf_counter() - start)
                if size == _PAGE:
                    driver[name].append(time.process_time() - cpu)
    medians = {key: median(values) for key, values in seconds.items()}
    return {
        name: {
            "calls": medians[name, _PAGE],
            "driver": median(driver[name]),
            "weights": medians[name, weight_bytes] - medians[name, _PAGE],
        }
        for name in pools
    }


def overlap(
    name: str, loop: Any, staleness: int, seconds: StageSeconds, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Seconds an iteration of a loop with eight workers, against its longest stage."""
    from actors.cluster import processes
    from actors.rollout.rollout_pool import RolloutPool

    config = simulated_config(folder / f"{name}_{staleness}", 8, 10, max_staleness=staleness)
    tokens = tokenizer_folder(folder / f"tokenizer_{name}_{staleness}", config)
    handles = hosted_workers(config, tokens, seconds.rollout, 8, HOSTS)
    metrics = run_loop(
        SimulatedRun(config, seconds), RolloutPool(handles, 300), folder / f"run_{name}_{staleness}", loop
    )
    for host in {handle.host for handle in handles}:
        processes.kill(host)
    counted = metrics[2:]
    whole = sum(line["time/iteration"] for line in counted) / len(counted)
    longest = max(seconds.rollout, seconds.learning)
    progress.say(f"{name}, max_staleness {staleness}: {whole:.2f} s an iteration")
    return {
        "loop": name,
        "max_staleness": staleness,
        "seconds": whole,
        "of_longest": whole / longest,
        "one_after_the_other": seconds.all,
        "oldest": int(max(line.get("staleness/max", 0.0) for line in metrics)),
    }


if __name__ == "__main__":
    common.run(main)
