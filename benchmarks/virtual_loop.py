"""A run of the real loops, pool and bookkeeping on the virtual cluster, and what it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any
from unittest import mock

from simulation import simulated_config
from virtual_cluster import Clock, VirtualActor, virtual_cluster
from virtual_parts import (
    PROMPT,
    REASONING,
    SHAPE,
    Network,
    VirtualLearner,
    VirtualPolicy,
    VirtualVerifier,
    VirtualWorker,
    weights_size,
)

from airls_ray.planning.costs import Hardware, forward_flops, update_flops
from airls_ray.planning.lengths import ResponseLengths

if TYPE_CHECKING:
    from actors.rollout.rollout_pool import RolloutPool
    from actors.train.parts import Parts
    from airls_ray.config.schema import Config

DEADLINE = 1e9
"""Seconds, virtual: nothing hangs here."""


@dataclass(frozen=True)
class Scenario:
    """A cluster and a run on it."""

    workers: int
    """Rollout workers, of one GPU each."""
    iterations: int = 4
    """In all; the first ones, one or `staleness`, are not counted."""
    groups_per_worker: int = 8
    """Of eight rollouts, in an iteration."""
    staleness: int = 0
    """`train.max_staleness`; 0: the synchronous loop."""
    shares_per_worker: int = 1
    """`rollout.shares_per_worker`."""
    lengths: ResponseLengths = REASONING
    nccl: bool = False
    """Weights by NCCL, not by the object store."""
    learning_seconds: float = 200.0
    """What the learners take in all for an iteration: they have as many GPUs as that needs, however many
    workers there are."""
    slow_nodes: int = 0
    """Nodes whose workers take `slower` times as long."""
    slower: float = 1.0
    hot_learner: float = 1.0
    """How many times as long the policy learner takes as it should."""
    spills: bool = False
    """Whether the learner's object store has room for one copy of the weights alone."""
    refill_rounds: int = 0
    """`train.refill_rounds`."""
    kept_share: float = 1.0
    """Of the groups, that row filters keep."""
    hardware: Hardware = field(default_factory=Hardware)


@dataclass(frozen=True)
class Outcome:
    """What a scenario comes to; all but `driver_cores` is in virtual time and the same on every machine."""

    rollouts_per_second: float
    iteration_seconds: float
    stages: Mapping[str, float]
    """Mean seconds of the stages, as in `metrics.jsonl`."""
    busy_share: float
    """Of the workers' time in which they sample."""
    driver_cores: float
    """Processor seconds of the driver's own code, without Ray's, for each second of the run."""

    @property
    def of_longest(self) -> float:
        """An iteration over its longest stage: the workers' mean work, or all that the learners do."""
        learning = sum(self.stages.get(name, 0.0) for name in LEARNING)
        return self.iteration_seconds / max(self.busy_share * self.iteration_seconds, learning)


LEARNING = ("log_probs", "prm_update", "prm_score", "policy_update")


def simulate(scenario: Scenario, folder: Path) -> Outcome:
    """Run all iterations of a scenario; `folder` holds the run's files."""
    from actors.rollout.fleet import FixedFleet
    from actors.rollout.rollout_pool import RolloutPool
    from actors.train import async_loop, tracking
    from actors.train.loop import train

    config = _config(scenario, folder)
    with virtual_cluster() as clock, ExitStack() as stack:
        # The driver reads the rollouts where it stores them (`train.rollouts_every`), which is not counted.
        stack.enter_context(mock.patch.object(tracking, "graded_table", _no_rollouts))
        stream = partial(_stream_class(), clock)
        stack.enter_context(mock.patch.object(async_loop, "RolloutStream", stream))
        network = Network(scenario.hardware, weights_size())
        gpus = scenario.hardware.gpus_per_node
        workers = [_worker(scenario, network, number // gpus) for number in range(scenario.workers)]
        handles = [VirtualActor(clock, worker) for worker in workers]
        fleet = FixedFleet(handles, [worker.node for worker in workers])
        pool = RolloutPool(fleet, DEADLINE, shares_per_worker=scenario.shares_per_worker)
        parts = _parts(scenario, config, clock, network, pool)
        loop = async_loop.train_async if scenario.staleness else train
        start, own = time.process_time(), clock.own_seconds
        lines = _run(loop, parts, config, folder)
        spent = time.process_time() - start - (clock.own_seconds - own)
    counted = lines[max(scenario.staleness, 1) :]  # before, the asynchronous loop has less ahead
    whole = fmean(line["time/iteration"] for line in counted)
    stages = {
        name.removeprefix("time/"): fmean(line.get(name, 0.0) for line in counted)
        for name in counted[0]
        if name.startswith("time/") and name != "time/iteration"
    }
    work = fmean(line["simulated/work"] for line in counted) / scenario.workers
    responses = fmean(line["simulated/responses"] for line in counted)
    return Outcome(responses / whole, whole, stages, work / whole, spent / clock.now)


def learner_gpus(scenario: Scenario) -> tuple[int, int]:
    """GPUs of policy and PRM learner with which all stages of learning take `learning_seconds` together.

    Both are of one size and learn one after the other, so each has the same seconds for its tokens.
    """
    rollouts = scenario.workers * scenario.groups_per_worker * 8
    context = scenario.lengths.mean() + PROMPT
    tokens, hardware = rollouts * context, scenario.hardware
    updates = update_flops(SHAPE, tokens, context) / (hardware.flops * hardware.training_share)
    passes = forward_flops(SHAPE, tokens, context) / (hardware.flops * hardware.forward_share)
    policy = updates + (passes if scenario.staleness else 0.0)
    prm = updates + passes
    half = scenario.learning_seconds / 2
    return max(round(policy / half), 1), max(round(prm / half), 1)


def _config(scenario: Scenario, folder: Path) -> Config:
    refill = {"refill_rounds": scenario.refill_rounds} if scenario.refill_rounds else {}
    config = simulated_config(
        folder,
        scenario.workers,
        scenario.iterations,
        problems_per_iteration=scenario.workers * scenario.groups_per_worker,
        max_staleness=scenario.staleness,
    )
    train = config.train.model_copy(update=refill)  # the filters themselves are the virtual verifier's
    return config.model_copy(update={"train": train})


def _worker(scenario: Scenario, network: Network, node: int) -> VirtualWorker:
    slower = scenario.slower if node < scenario.slow_nodes else 1.0
    return VirtualWorker(f"node-{node}", network, scenario.lengths, slower=slower)


def _parts(scenario: Scenario, config: Config, clock: Clock, network: Network, pool: RolloutPool) -> Parts:
    from actors.learn.groups import NoReference, PolicyGroup, PRMGroup
    from actors.train.parts import Parts
    from actors.train.start import training_problems
    from actors.train.tracking import LoopState
    from actors.train.weight_sync import NCCLWeightSync, WeightSync
    from actors.verify.verifier_handle import VerifierHandle

    of_policy, of_prm = learner_gpus(scenario)
    learner = VirtualPolicy(SHAPE, network, of_policy, scenario.hot_learner, scenario.spills)
    policy = PolicyGroup("policy learner", [VirtualActor(clock, learner)], DEADLINE)
    prm = VirtualActor(clock, VirtualLearner(SHAPE, network, of_prm))
    verifier = VirtualActor(clock, VirtualVerifier(scenario.kept_share))
    return Parts(
        problems=training_problems(config, LoopState(), None),
        pool=pool,
        verifier=VerifierHandle(verifier, DEADLINE),
        reference=NoReference(),
        prm=PRMGroup([prm], policy, traces=False, replay=False, deadline_seconds=DEADLINE),
        policy=policy,
        sync=NCCLWeightSync(policy, pool, 1) if scenario.nccl else WeightSync(policy, pool),
    )


def _run(loop: Callable[..., Any], parts: Parts, config: Config, folder: Path) -> list[dict[str, Any]]:
    from actors.train.tracking import LoopState, Shown, Tracker
    from airls_ray.console.progress import QuietProgress
    from airls_ray.runs.run_control import RunControl
    from airls_ray.runs.run_folder import RunFolder

    run = RunFolder(folder)
    with run.locked():
        run.create(config, resume=False)
        control = RunControl(folder, config.iterations)
        with QuietProgress().track("", config.iterations) as bar:
            loop(parts, config, LoopState(), Tracker(run, config, Shown(bar, 0), None, control))
        return run.read_metrics()


def _no_rollouts(*_: Any) -> Any:
    import pyarrow as pa

    return pa.table({"rollout": pa.array([], pa.int64())})


def _stream_class() -> type:
    """The real stream without its two threads: the clock lets it turn while the loop waits."""
    from actors.train.rollout_stream import Gathered, RolloutStream

    class Stream(RolloutStream):
        """Turns when asked."""

        def __init__(self, clock: Clock, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._clock = clock
            self._grader = _Grader(self._verifier, Gathered)  # type: ignore[assignment]

        def __enter__(self) -> Stream:
            self._clock.pump = self._turn
            return self

        def __exit__(self, *_: Any) -> None:
            self._clock.pump = None
            self._pool.give_up()

        def take(self) -> Gathered:
            while self._taken not in self._ready:
                self._turn()
            return super().take()

        def _turn(self) -> None:
            self._obey()
            self._submit(self._trained)
            self._pool.advance(_TURN_SECONDS)
            self._publish()

    return Stream


_TURN_SECONDS = 0.1
"""Of the real stream."""


class _Grader:
    """The thread that grades."""

    def __init__(self, verifier: Any, gathered: type) -> None:
        self._verifier, self._gathered = verifier, gathered

    def submit(self, grade: Any, one: Any, seconds: float) -> _Grading:
        """Begin to grade what is sampled."""
        problems, rollouts = one.sampling.result()
        begun = self._verifier.start("grade", rollouts, problems)
        return _Grading(
            self._verifier,
            begun,
            lambda: self._gathered(problems, rollouts, begun[0], [], one.position, seconds, 0.0),
        )


@dataclass(frozen=True)
class _Grading:
    verifier: Any
    begun: Any
    make: Callable[[], Any]

    def result(self) -> Any:
        """Wait for the grades."""
        self.verifier.finish(self.begun)
        return self.make()
