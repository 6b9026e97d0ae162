"""Rollout workers whose engines take time and compute nothing, many in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.weights import WeightBuffer


_COMPUTED_BY = 0.8
"""Share of a call's seconds after which the last worker of a host begins to compute."""


@contextmanager
def lasting(seconds: float) -> Iterator[None]:
    """Make the block last so many seconds, if it is done before."""
    end = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, end - time.monotonic()))


class SimulatedEngine:
    """An engine whose samples follow from their seeds, after some seconds; see
    `actors.rollout.engine.Engine`."""

    def __init__(self, seconds: float, tokens: int, eos: int) -> None:
        """`seconds`: of a call; `tokens`: of a response."""
        self._seconds, self._tokens, self._eos = seconds, tokens, eos

    def generate(self, prompts: Sequence[Any], seeds: Sequence[int], sampling: Any) -> list[list[Any]]:
        """Sleep, then answer."""
        time.sleep(self._seconds)
        return [[self._sample(seed + index) for index in range(sampling.samples)] for seed in seeds]

    def run(self, requests: Sequence[Any]) -> list[list[Any]]:
        """The same for requests."""
        time.sleep(self._seconds)
        return [[self._sample(one.seed + index) for index in range(one.samples)] for one in requests]

    def run_interruptible(self, requests: Sequence[Any], version: int, news: Any) -> list[list[Any]]:
        """The same, taking weights meanwhile: tokens before that share of the seconds have the old
        version."""
        start, versions = time.monotonic(), [version] * (self._tokens + 1)
        while (passed := time.monotonic() - start) < self._seconds:
            weights = news()
            if weights is not None:
                self.update_weights(weights)
                done = max(1, int(passed / self._seconds * len(versions)))
                versions[done:] = [weights.version] * (len(versions) - done)
            time.sleep(0.01)
        spans = versions if len(set(versions)) > 1 else None
        return [
            [replace(self._sample(one.seed + index), versions=spans) for index in range(one.samples)]
            for one in requests
        ]

    def _sample(self, seed: int) -> Any:
        from actors.rollout.engine import Sample

        drawn = np.random.default_rng(seed).integers(2, 12, size=self._tokens).tolist()
        return Sample([*drawn, self._eos], [-1.0] * (self._tokens + 1), "stop")

    def forget_prefixes(self) -> None:
        """Nothing is kept."""

    def update_weights(self, weights: WeightBuffer) -> None:
        """Read a byte of every page, as a worker reads a buffer in place."""
        weights.data[::4096].sum()


@dataclass(frozen=True)
class SimulatedEngines:
    """Makes the engine of a worker (an `EngineFactory`)."""

    seconds: float
    tokens: int = 32

    def __call__(self, model: str | Path, config: Config, eos_ids: Sequence[int]) -> SimulatedEngine:
        """See `actors.rollout.rollout_worker.EngineFactory`."""
        return SimulatedEngine(self.seconds, self.tokens, eos_ids[0])


class WorkerHost:
    """An actor that is many rollout workers, each in a thread: so that hundreds fit on one machine."""

    def __init__(self, config: Config, folder: str, seconds: float, count: int) -> None:
        """`folder`: of a tokenizer."""
        from actors.rollout.rollout_worker import RolloutWorker

        self._seconds = seconds
        self._workers = [
            RolloutWorker(f"worker-{number}", config, folder, SimulatedEngines(0.0))
            for number in range(count)
        ]

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        """Call one worker. Sampling takes its seconds in all: what it computes is on a machine of its own
        in a real cluster, and on this machine's few cores here. So the workers compute one after the other
        while it lasts; all at once they would keep each other, and the driver, from beginning."""
        if method != "generate":
            return getattr(self._workers[number], method)(*arguments)
        with lasting(self._seconds):
            time.sleep(_COMPUTED_BY * self._seconds * number / len(self._workers))
            return getattr(self._workers[number], method)(*arguments)


class _Method:
    def __init__(self, host: Any, number: int, name: str) -> None:
        self._host, self._number, self._name = host, number, name

    def remote(self, *arguments: Any) -> Any:
        """As of an actor's method."""
        return self._host.call.remote(self._number, self._name, *arguments)


class HostedWorker:
    """Looks like the handle of a rollout worker's actor."""

    def __init__(self, host: Any, number: int) -> None:
        """`number`: within the host."""
        self.host = host
        for name in ("start", "generate", "update_weights", "forget_prefixes", "tell", "version", "prove"):
            setattr(self, name, _Method(host, number, name))


def hosted_workers(config: Config, folder: Path, seconds: float, count: int, hosts: int) -> list[Any]:
    """Start `count` workers on at most `hosts` actors; returns their handles and the actors."""
    from actors.cluster import cluster, processes
    from airls_ray.config.schema import Resources

    each = -(-count // hosts)
    handles: list[Any] = []
    while len(handles) < count:
        size = min(each, count - len(handles))
        host = processes.start_actor(
            WorkerHost, "", Resources(cpus=0.01, threads=1), config, str(folder), seconds, size,
            concurrency=size + 1,
        )  # fmt: skip
        handles += [HostedWorker(host, number) for number in range(size)]
    cluster.fetch([handle.start.remote() for handle in handles], 300, "starting simulated workers")
    return handles
