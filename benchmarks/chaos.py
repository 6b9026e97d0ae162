"""Kill processes and nodes of a run at random, again and again, and compare it with one that was left in
peace."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from simulated_workers import SimulatedEngines
from simulation import (
    SimulatedRun,
    StageSeconds,
    run_loop,
    simulated_config,
    tokenizer_folder,
)

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress

HOST = "127.0.0.1"
WORKERS = 3
NODES = 2
"""Worker nodes beside the head, each with room for two workers."""
KINDS = {"worker": 4, "learner": 2, "verifier": 1, "reference server": 1, "node": 1, "driver": 1}
"""What is killed, and how often compared with others."""


def main(
    kills: Annotated[int, typer.Option(min=1, help="Processes and nodes to kill in all.")] = 100,
    every: Annotated[float, typer.Option(help="Seconds between two kills.")] = 10.0,
    iterations: Annotated[int, typer.Option(min=2, help="Iterations of each run.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the victims.")] = 0,
    minutes: Annotated[float, typer.Option(help="End the killing after so many minutes.")] = 60.0,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Kill only these (may be repeated): {', '.join(KINDS)}.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of chaos.json.")] = common.RESULTS,
) -> None:
    """Run the real loop, pool, recovery and checkpoints with engines and learners that only take time.

    Driver, workers, learners, verifier and reference server are processes of their own, on a cluster of
    three nodes on this machine. The learners keep a digest of all that they were taught: both runs must end
    with the same one. A driver that was killed is started again and goes on from the last checkpoint, as
    `--resume` does.
    """
    from airls_ray.console.choose import make_progress

    if unknown := set(only or []) - set(KINDS):
        raise typer.BadParameter(f"{min(unknown)!r} is none of {', '.join(KINDS)}")
    progress = make_progress()
    folder = Path(tempfile.mkdtemp(prefix="airls_chaos_"))
    try:
        with cluster_of_nodes() as nodes:
            undisturbed = Driver(nodes.address, folder / "quiet", iterations)
            with progress.phase("undisturbed"), closing(undisturbed):
                undisturbed.wait()
            driver = Driver(nodes.address, folder / "chaos", iterations)
            killer = Killer(nodes, driver, kills, every, seed, only or KINDS, progress)
            with progress.phase("with kills"), closing(driver):
                killer.kill_until_done(60 * minutes)
        figures = compare(undisturbed, driver, killer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures["processes_left"] = ray_processes_left()
    progress.table(
        "After the kills",
        [(name.replace("_", " "), str(value)) for name, value in figures.items()],
        ("", "measured"),
    )
    path = common.write_result("chaos", figures, output)
    progress.say(f"written to {path}")


def compare(undisturbed: Driver, disturbed: Driver, killer: Killer) -> dict[str, Any]:
    """What both runs taught, and what the kills cost."""
    names = ("policy/learner/digest", "prm/learner/digest")
    quiet, wounded = undisturbed.metrics(), disturbed.metrics()
    return {
        "kills": dict(killer.killed),
        "kills_in_all": sum(killer.killed.values()),
        "iterations": len(wounded),
        "completed": [line["iteration"] for line in wounded] == [line["iteration"] for line in quiet],
        "same_groups_in_the_same_order": [[line[name] for name in names] for line in wounded]
        == [[line[name] for name in names] for line in quiet],
        "groups_done_again_in_the_iterations_kept": int(sum(line["pool/requeued"] for line in wounded)),
        "groups_dropped": int(sum(line["pool/dropped"] for line in wounded)),
        "workers_lost_in_the_iterations_kept": int(sum(line["pool/deaths"] for line in wounded)),
        "seconds": round(disturbed.seconds, 1),
        "seconds_undisturbed": round(undisturbed.seconds, 1),
    }


# ------------------------------------------------------------------------------------- the run
def drive(address: str, folder: str, iterations: int) -> None:
    """The driver's process: the loop from the last checkpoint to the end."""
    from actors.cluster import cluster, processes
    from actors.rollout.elastic_fleet import ElasticFleet, FleetEvents, Launch
    from actors.rollout.rollout_pool import RolloutPool
    from actors.rollout.rollout_worker import RolloutWorker
    from actors.train.loop import train
    from airls_ray.config.schema import FailureConfig, RayConfig, Resources

    config = simulated_config(Path(folder), WORKERS, iterations, checkpoint_every=2)
    # Workers die faster than any machine should: every limit on failures in a row is out of the way.
    patient = FailureConfig(attempts=50, backoff_seconds=0.2, worker_failures=10_000, rebuilds=10_000)
    config = config.model_copy(update={"failures": patient})
    tokens = tokenizer_folder(Path(folder) / "tokenizer", config)
    seconds = StageSeconds(rollout=0.5, grade=0.05, prm_update=0.1, prm_score=0.05, policy_update=0.1)
    resources = Resources(cpus=0.1, threads=1, custom={"rollout": 1})

    def start_worker(name: str, room: Callable[[], Any] | None) -> Any:
        return processes.start_actor(
            RolloutWorker, "", resources, name, config, str(tokens), SimulatedEngines(seconds.rollout),
            threads=1, room=room,
        )  # fmt: skip

    cluster.connect(RayConfig(address=address))
    try:
        fleet = ElasticFleet(
            Launch({"CPU": 0.1, "rollout": 1.0}, start_worker), 1, WORKERS, patient,
            start_seconds=120, events=FleetEvents(),
        )  # fmt: skip
        with closing(fleet):
            pool = RolloutPool(fleet, 60, patient, shares_per_worker=2)
            run_loop(SimulatedRun(config, seconds, reference=True), pool, Path(folder) / "run", train)
    finally:
        cluster.disconnect()


class Driver:
    """The process that drives a run; started again when it was killed."""

    def __init__(self, address: str, folder: Path, iterations: int) -> None:
        """Start it; `address`: of the cluster."""
        self._arguments = (address, str(folder), iterations)
        self._folder = folder
        self._start = time.perf_counter()
        self.seconds = 0.0
        self._process = self._started()

    def _started(self) -> BaseProcess:
        process = multiprocessing.get_context("spawn").Process(target=drive, args=self._arguments)
        process.start()
        return process

    def done(self) -> bool:
        """Whether the run is over; a driver that was killed is started again.

        Raises:
            RuntimeError: it ended by an error of its own.
        """
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            self._process = self._started()
        elif code is not None and code != 0:
            raise RuntimeError(f"the driver ended with exit code {code}: its message is above")
        if code == 0 and not self.seconds:
            self.seconds = time.perf_counter() - self._start
        return code == 0

    def wait(self) -> None:
        """Wait until the run is over."""
        while not self.done():
            time.sleep(0.1)

    def kill(self) -> bool:
        """SIGKILL; False where it has ended."""
        if self._process.exitcode is not None:
            return False
        self._process.kill()
        self._process.join()
        return True

    def metrics(self) -> list[dict[str, Any]]:
        """Of all iterations."""
        from airls_ray.runs.run_folder import RunFolder

        return RunFolder(self._folder / "run").read_metrics()

    def close(self) -> None:
        """End it."""
        self.kill()


@contextmanager
def cluster_of_nodes() -> Iterator[Nodes]:
    """A head and some worker nodes on this machine, on loopback; all processes end with it."""
    from ray.cluster_utils import Cluster

    from actors.cluster.cluster import connect, disconnect
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
        self.address = str(cluster.address)
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

    def __init__(
        self,
        nodes: Nodes,
        driver: Driver,
        kills: int,
        every: float,
        seed: int,
        kinds: Collection[str],
        progress: Progress,
    ) -> None:
        """`kills` in all, one `every` so many seconds; `seed` chooses the victims among the `kinds`."""
        self._nodes, self._driver = nodes, driver
        self._weights = {kind: KINDS[kind] for kind in KINDS if kind in kinds}
        self._kills, self._every, self._progress = kills, every, progress
        self._random = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def kill_until_done(self, seconds: float) -> None:
        """Kill until the run is done, enough is killed or the time is up; nodes that are gone are brought
        back at once."""
        end = time.monotonic() + seconds
        while not self._driver.done():
            time.sleep(self._every)
            self._nodes.fill()
            if sum(self.killed.values()) >= self._kills or time.monotonic() > end:
                self._driver.wait()
                return
            (kind,) = self._random.choices(list(self._weights), list(self._weights.values()))
            if self._kill(kind):
                self.killed[kind] += 1
                self._tell()

    def _kill(self, kind: str) -> bool:
        """Kill one; False if there is none now."""
        if kind == "driver":
            return self._driver.kill()
        if kind == "node":
            return self._nodes.kill(self._random.randrange(NODES))
        names = {
            "worker": "RolloutWorker",
            "learner": "SimulatedLearner",
            "verifier": "SimulatedVerifier",
            "reference server": "SimulatedReference",
        }
        return self._kill_actor(names[kind])

    def _tell(self) -> None:
        done = sum(self.killed.values())
        if done % 10 == 0:
            self._progress.say(
                f"{done} kills: {dict(self.killed)}; {len(self._driver.metrics())} iterations done"
            )

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
