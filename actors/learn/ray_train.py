"""The adapter to Ray Train: ranks of a supervised training, followed by the driver through their metrics.

Ray Train starts the ranks; they meet as the learners of a run do, and each runs one function to its end.
Rank 0 appends a line per update to a file, which the driver shows and by which it keeps its deadline.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.cluster import cluster, processes
from actors.cluster.host import load
from airls_ray import files
from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.errors import RunError, UserError

_POLL_SECONDS = 0.5

Line = dict[str, Any]


@dataclass(frozen=True)
class RankRun:
    """A training by all ranks of a learner."""

    name: str
    """Of the training, in Ray Train."""
    what: str
    """The same in the words of messages."""
    train_rank: str
    """`module:function` that every rank runs; it gets `job` with the number of `threads` added."""
    job: dict[str, Any]
    learner: LearnerConfig
    folder: Path
    """Where Ray Train may keep files while it runs."""
    metrics: Path
    """The file that rank 0 appends lines to."""

    @property
    def demand(self) -> cluster.Demand:
        """What the ranks ask of the cluster."""
        return cluster.Demand(f"{self.what} rank", self.learner.resources, self.learner.ranks)


def run_ranks(run: RankRun, config: Config, show: Callable[[Line], None]) -> None:
    """Run all ranks to their end; `show` gets each line of the metrics as it appears.

    Ray Train runs in a thread, so that the driver keeps its deadlines.

    Raises:
        UserError: one sentence: a rank's own error, too few resources, a deadline, a dead process.
    """
    cluster.require_resources([run.demand], config.ray.resources_deadline_seconds)
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(run, config).fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    deadline = max(config.train.deadline_seconds, config.ray.start_deadline_seconds)
    follow(run.metrics, thread.is_alive, show, deadline, run.what)
    if failure:
        raise _in_words(failure[0], run.what)
    files.remove(_storage(run))


def follow(
    file: Path,
    is_running: Callable[[], bool],
    show: Callable[[Line], None],
    deadline_seconds: float,
    what: str,
) -> None:
    """Show each line as it appears, until the training ends.

    Raises:
        RunError: no line within the deadline.
    """
    last, lines = time.monotonic(), _new_lines(file)
    running = True
    while running:
        running = is_running()  # before reading, so that the last lines are read too
        for line in next(lines):
            last = time.monotonic()
            show(line)
        if time.monotonic() - last > deadline_seconds:
            raise RunError(
                f"the {what} made no update within {deadline_seconds:g} s: look into the Ray logs, or raise "
                "train.deadline_seconds"
            )
        if running:
            time.sleep(_POLL_SECONDS)


def _new_lines(file: Path) -> Iterator[list[Line]]:
    """Yield, at each turn, the whole lines that were added since the last one."""
    position = 0
    while True:
        lines: list[Line] = []
        if file.exists():
            with file.open("rb") as opened:
                opened.seek(position)
                for line in opened:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    lines.append(json.loads(line))
        yield lines


def _storage(run: RankRun) -> Path:
    return run.folder / "ray_train"


def _trainer(run: RankRun, config: Config) -> Any:
    """Ray Train's trainer for the ranks.

    Ray's `TorchTrainer` would import PyTorch here and in a process that only watches, and start actors that
    serve data sets; neither is needed to run a function on every rank.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # else relative paths of the configuration break
    start_deadline = config.ray.start_deadline_seconds
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(start_deadline))
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", str(start_deadline))
    # One process each, for what no training here asks for: a lost node ends it, and --resume goes on.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    import ray.train
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Ranks(DataParallelTrainer):  # type: ignore[misc]
        """Without the actor that hands out data sets, of which there are none."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if not isinstance(one, DatasetsCallback)]

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    learner = run.learner
    resources = {"CPU": learner.resources.cpus, "GPU": learner.resources.gpus, **learner.resources.custom}
    threads = learner.resources.threads or max(1, (os.cpu_count() or 1) // learner.ranks)
    return Ranks(
        run_rank,
        train_loop_config={
            "train_rank": run.train_rank,
            "environment": processes.process_environment(learner.resources, threads),
            "deadline_seconds": config.train.deadline_seconds,
            "job": {**run.job, "threads": threads},
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=learner.ranks,
            use_gpu=learner.resources.gpus > 0,
            resources_per_worker={name: value for name, value in resources.items() if value > 0},
        ),
        run_config=ray.train.RunConfig(
            name=run.name,
            storage_path=str(_storage(run)),
            failure_config=ray.train.FailureConfig(max_failures=0),
        ),
    )


def run_rank(work: dict[str, Any]) -> None:
    """What Ray Train runs in each worker: set the environment, meet the other ranks, do the job."""
    os.environ.update(work["environment"])  # before torch is imported
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    from actors.learn.deepspeed_engine import free_port, init_distributed

    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    own = (cluster.node_address(), free_port()) if rank == 0 else None
    address, port = broadcast_from_rank_zero(own)
    init_distributed(rank, ranks, address, port, work["deadline_seconds"])
    load(work["train_rank"])(work["job"])


def _in_words(error: BaseException, what: str) -> BaseException:
    """Turn what Ray Train raises into the error of the rank that failed first, or into one sentence."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for cause in [*failures, error]:
        inner: BaseException | None = cause
        while inner is not None:
            if isinstance(inner, UserError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    first = failures[0] if failures else error
    text = " ".join((str(first).strip().splitlines() or [type(first).__name__])[-1].split())[:300]
    failed = RunError(f"the {what} failed: {text}")
    failed.__cause__ = error
    return failed
