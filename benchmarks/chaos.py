"""Kill processes and nodes of a run at random, again and again, and compare it with one that was left in
peace."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from simulation import (
    SimulatedEngines,
    SimulatedRun,
    StageSeconds,
    run_loop,
    simulated_config,
    tokenizer_folder,
)

if TYPE_CHECKING:
    from airls_ray.progress import Progress

HOST = "127.0.0.1"
WORKERS = 3
NODES = 2
"""Worker nodes beside the head, each with room for two workers."""


def main(
    kills: Annotated[int, typer.Option(min=1, help="Processes and nodes to kill in all.")] = 100,
    every: Annotated[float, typer.Option(help="Seconds between two kills.")] = 4.0,
    iterations: Annotated[int, typer.Option(min=2, help="Iterations of each run.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the victims.")] = 0,
) -> None:
    """Run the real loop, pool, recovery and checkpoints with engines and learners that only take time.

    Every worker and learner is a real Ray actor with a process of its own, on a cluster of three nodes on
    this machine. The learners keep a digest of all that they were taught: both runs must end with the same
    one.
    """
    from airls_ray.progress import make_progress

    progress = make_progress()
    folder = Path(tempfile.mkdtemp(prefix="airls_chaos_"))
    try:
        with cluster_of_nodes() as nodes:
            quiet, _ = run(folder / "quiet", iterations, None, progress)
            killer = Killer(nodes, kills, every, seed, progress)
            wounded, seconds = run(folder / "chaos", iterations, killer, progress)
        figures = compare(quiet, wounded, killer, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures["processes_left"] = ray_processes_left()
    progress.table(
        "After the kills",
        [(name.replace("_", " "), str(value)) for name, value in figures.items()],
        ("", "measured"),
    )
    path = common.write_result("chaos", figures)
    progress.say(f"written to {path}")


def compare(
    quiet: list[dict[str, Any]], wounded: list[dict[str, Any]], killer: Killer, seconds: float
) -> dict[str, Any]:
    """What both runs taught, and what the kills cost."""
    names = ("policy/learner/digest", "prm/learner/digest")
    return {
        "kills": dict(killer.killed),
        "kills_in_all": sum(killer.killed.values()),
        "iterations": len(wounded),
        "same_groups_in_the_same_order": all(
            one[name] == other[name] for one, other in zip(quiet, wounded, strict=True) for name in names
        ),
        "groups_done_again": int(sum(line["pool/requeued"] for line in wounded)),
        "groups_dropped": int(sum(line["pool/dropped"] for line in wounded)),
        "workers_lost_in_the_iterations_kept": int(sum(line["pool/deaths"] for line in wounded)),
        "seconds": round(seconds, 1),
        "seconds_undisturbed": round(sum(line["time/iteration"] for line in quiet), 1),
    }


# ------------------------------------------------------------------------------------- the run
def run(
    folder: Path, iterations: int, killer: Killer | None, progress: Progress
) -> tuple[list[dict[str, Any]], float]:
    """The loop from start to end; returns its metrics and seconds."""
    from actors import cluster
    from actors.elastic_fleet import ElasticFleet, FleetEvents, Launch
    from actors.loop import train
    from actors.rollout_pool import RolloutPool
    from actors.rollout_worker import RolloutWorker
    from airls_ray.config.schema import FailureConfig, Resources

    config = simulated_config(folder, WORKERS, iterations, checkpoint_every=2)
    # Workers die faster than any machine should: every limit on failures in a row is out of the way.
    patient = FailureConfig(attempts=50, backoff_seconds=0.2, worker_failures=10_000, rebuilds=10_000)
    config = config.model_copy(update={"failures": patient})
    tokens = tokenizer_folder(folder / "tokenizer", config)
    seconds = StageSeconds(rollout=0.5, grade=0.05, prm_update=0.1, prm_score=0.05, policy_update=0.1)
    resources = Resources(cpus=0.1, threads=1, custom={"rollout": 1})

    def start_worker(name: str, group: Any) -> Any:
        return cluster.start_actor(
            RolloutWorker, "", resources, name, config, str(tokens), SimulatedEngines(seconds.rollout),
            threads=1, group=group,
        )  # fmt: skip

    fleet = ElasticFleet(
        Launch({"CPU": 0.1, "rollout": 1.0}, start_worker), 1, WORKERS, patient,
        start_seconds=120, events=FleetEvents(),
    )  # fmt: skip
    pool = RolloutPool(fleet, 60, patient, shares_per_worker=2)
    start = time.perf_counter()
    with (
        progress.phase("with kills" if killer else "undisturbed"),
        closing(fleet),
        ThreadPoolExecutor(1) as side,  # Ray starts nodes in the main thread alone, so the run has another
    ):
        done = side.submit(run_loop, SimulatedRun(config, seconds), pool, folder / "run", train)
        if killer is not None:
            killer.kill_until(done.done)
        metrics = done.result()
    return metrics, time.perf_counter() - start


@contextmanager
def cluster_of_nodes() -> Iterator[Nodes]:
    """A head and some worker nodes on this machine, on loopback; all processes end with it."""
    from ray.cluster_utils import Cluster

    from actors.cluster import connect, disconnect
    from airls_ray.config.schema import RayConfig

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "object_store_memory": 2**28,
            "include_dashboard": False,
            "node_ip_address": HOST,
        },
    )
    nodes = Nodes(made)
    try:
        for _ in range(NODES):
            nodes.add()
        connect(RayConfig(address=made.address))
        yield nodes
    finally:
        disconnect()
        made.shutdown()


class Nodes:
    """The worker nodes of the cluster."""

    def __init__(self, cluster: Any) -> None:
        """`cluster`: ray.cluster_utils.Cluster."""
        self._cluster = cluster
        self._nodes: list[Any] = []

    def add(self) -> None:
        """One more, with room for two workers."""
        self._nodes.append(
            self._cluster.add_node(
                num_cpus=2, resources={"rollout": 2}, object_store_memory=2**27, node_ip_address=HOST
            )
        )

    def kill(self, number: int) -> bool:
        """Kill a node with all that runs on it; False if there is none."""
        if not self._nodes:
            return False
        node = self._nodes.pop(number % len(self._nodes))
        self._cluster.remove_node(node, allow_graceful=False)
        return True

    def fill(self) -> None:
        """Bring nodes until there are as many as at the beginning; a node that does not start is tried
        again."""
        while len(self._nodes) < NODES:
            try:
                self.add()
            except Exception as error:  # Ray raises nothing finer when a node is slow to start
                logging.getLogger(__name__).warning("a node did not start: %s", error)
                return


class Killer:
    """Kills something every few seconds, until it has killed enough."""

    def __init__(self, nodes: Nodes, kills: int, every: float, seed: int, progress: Progress) -> None:
        """`kills` in all, `every` so many seconds; `seed` chooses the victims."""
        self._nodes, self._kills, self._every, self._progress = nodes, kills, every, progress
        self._random = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def kill_until(self, done: Callable[[], bool]) -> None:
        """Kill until the run is done or enough is killed; nodes that are gone are brought back at once."""
        kinds: list[tuple[str, Callable[[], bool]]] = [
            ("worker", lambda: self._kill_actor("RolloutWorker")),
            ("worker", lambda: self._kill_actor("RolloutWorker")),
            ("learner or verifier", lambda: self._kill_actor("SimulatedLearner")),
            ("learner or verifier", lambda: self._kill_actor("SimulatedLearner")),
            ("node", self._kill_node),
        ]
        while not done():
            time.sleep(self._every)
            self._nodes.fill()
            if sum(self.killed.values()) >= self._kills:
                continue
            kind, kill = self._random.choice(kinds)
            if kill():
                self.killed[kind] += 1
                if sum(self.killed.values()) % 10 == 0:
                    self._progress.say(f"{sum(self.killed.values())} kills: {dict(self.killed)}")

    def _kill_actor(self, class_name: str) -> bool:
        """SIGKILL to the process of a random living actor of a class."""
        from ray._private.state import actors

        found = [
            one["Pid"]
            for one in actors().values()
            if one["State"] == "ALIVE" and one["ActorClassName"] == class_name
        ]
        if not found:
            return False
        try:
            os.kill(self._random.choice(sorted(found)), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _kill_node(self) -> bool:
        return self._nodes.kill(self._random.randrange(NODES))


def ray_processes_left() -> int:
    """Ray processes that are children of this one and still run."""
    left = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            left += status[0] != "Z" and int(status[1]) == os.getpid() and b"ray" in command
    return left


if __name__ == "__main__":
    common.run(main)
