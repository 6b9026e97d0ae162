"""Connecting to Ray and bringing all actors up side by side."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actors import cluster
from actors.cluster import Demand
from actors.groups import (
    ImplicitPRMGroup,
    NCCLWeightSync,
    NoPRM,
    NoReference,
    PolicyGroup,
    PRMGroup,
    PRMPart,
    PRMScorer,
    ReferenceGroup,
    VerifierHandle,
    WeightSync,
)
from actors.loop import Parts
from actors.rollout_pool import RolloutPool
from actors.rollout_worker import RolloutWorker
from actors.tracking import LoopState
from actors.vllm_engine import engine_environment
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.progress import Progress
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task


@dataclass(frozen=True)
class Sources:
    """Where models are read from; at a resume, the checkpoint's folders."""

    policy: str
    prm: str | None
    reference: str
    policy_state: str | None = None
    prm_state: str | None = None


@contextmanager
def connected(config: Config) -> Iterator[None]:
    """Be connected to Ray inside the block; whoever connected disconnects, whatever happens.

    A cluster of our own ends with it, and all its processes.
    """
    if cluster.is_connected():
        yield
        return
    cluster.connect(config.ray)
    previous = _interrupt_on_sigterm()
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        cluster.disconnect()


def _interrupt_on_sigterm() -> Any:
    """`ray job stop` sends SIGTERM; treat it as Ctrl-C (installed after ray.init, which replaces it)."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, interrupt)


def demands(config: Config) -> list[Demand]:
    """What all actors together ask of the cluster."""
    asked = [
        Demand("rollout worker", config.rollout.resources, config.rollout.min_workers),
        Demand("policy learner", config.policy.resources, config.policy.ranks),
        Demand("verifier", config.verifier.resources),
    ]
    if config.prm_learns:
        asked.append(Demand("PRM learner", config.prm.learner.resources, config.prm.learner.ranks))
    elif config.uses_prm:
        asked.append(Demand("PRM", config.prm.learner.resources))
    if config.uses_reference:
        asked.append(Demand("reference server", config.reference.resources))
    return asked


def start_parts(config: Config, sources: Sources, progress: Progress, state: LoopState) -> Parts:
    """Start all actors side by side, with a line and its seconds for each."""
    from actors.learners import PolicyLearner, ReferenceServer
    from actors.prm_learner import PRMLearner, PRMServer
    from actors.verifier import Verifier

    cluster.require_resources(demands(config), config.ray.resources_deadline_seconds)
    deadline = config.train.deadline_seconds
    workers = start_workers(config, sources.policy)
    policy_ranks = [
        cluster.start_actor(
            PolicyLearner, f"policy-{rank}", config.policy.resources, rank, config, sources.policy,
            threads=_threads(config.policy.ranks),
        )
        for rank in range(config.policy.ranks)
    ]  # fmt: skip
    prm_ranks = [
        cluster.start_actor(
            PRMLearner, f"prm-{rank}", config.prm.learner.resources, rank, config, sources.policy,
            sources.prm, threads=_threads(config.prm.learner.ranks),
        )
        for rank in range(config.prm.learner.ranks if config.prm_learns else 0)
    ]  # fmt: skip
    prm_servers = [
        cluster.start_actor(
            PRMServer, "prm-0", config.prm.learner.resources, config, sources.policy, sources.prm
        )
        for _ in range(config.uses_prm and not config.prm_learns)
    ]
    references = [
        cluster.start_actor(
            ReferenceServer, "reference", config.reference.resources, config, sources.reference
        )
        for _ in range(config.uses_reference)
    ]
    verifier = cluster.start_actor(Verifier, "verifier", config.verifier.resources, config, sources.policy)
    policy = PolicyGroup("policy learner", policy_ranks, deadline)
    reference = ReferenceGroup("reference server", references, deadline) if references else NoReference()
    prm = _prm_part(config, prm_ranks, prm_servers, policy, reference)
    starting = {
        "rollout worker": [worker.start.remote() for worker in workers],
        "verifier": [verifier.start.remote()],
        "policy learner": _start_ranks(policy_ranks, sources.policy_state, state.version, config),
        "PRM learner": _start_ranks(prm_ranks, sources.prm_state, state.version, config),
        "PRM": [server.start.remote() for server in prm_servers],
        "reference server": [server.start.remote() for server in references],
    }
    wait_for_start(starting, config, progress)
    pool = RolloutPool(workers, config.rollout.deadline_seconds)
    engine = config.rollout.engine
    sync: WeightSync | NCCLWeightSync
    if engine.weight_transfer == "nccl":
        sync = NCCLWeightSync(policy, pool, engine.tensor_parallel)
    else:
        sync = WeightSync(policy, pool)
    if state.version:
        sync.push()
    return Parts(
        problems=ProblemStream(
            make_task(config.task), "train", derive_seed(config.seed, "problems"), start=state.position
        ),
        pool=pool,
        verifier=VerifierHandle(verifier, deadline),
        reference=reference,
        prm=prm,
        policy=policy,
        sync=sync,
        actors=(*workers, *policy_ranks, *prm_ranks, *prm_servers, *references, verifier),
    )


def _prm_part(
    config: Config,
    ranks: list[Any],
    servers: list[Any],
    policy: PolicyGroup,
    reference: ReferenceGroup | NoReference,
) -> PRMPart:
    """What stands at the PRM's place in the loop."""
    deadline, replay = config.train.deadline_seconds, config.prm.replay_iterations > 0
    if servers:
        return PRMScorer(servers, deadline)
    if not ranks:
        return NoPRM()
    if isinstance(reference, ReferenceGroup) and config.method.prm_objective == "prime":
        return ImplicitPRMGroup(ranks, reference, replay, deadline)
    return PRMGroup(ranks, policy, replay, deadline)


def wait_for_start(starting: dict[str, list[Any]], config: Config, progress: Progress) -> None:
    """Wait for all actors at once, with a line and its seconds for each that comes up."""
    names = {
        ref: f"{name} {index}" if len(refs) > 1 else name
        for name, refs in starting.items()
        for index, ref in enumerate(refs)
    }
    until = time.monotonic() + config.ray.start_deadline_seconds
    while names:
        left = until - time.monotonic()
        for ref in cluster.first_ready(list(names), max(left, 0.0)) or list(names):
            name = names.pop(ref)
            seconds = cluster.fetch(ref, max(left, 0.0), f"starting the {name}")
            progress.phase_done(f"{name} ready", seconds)


def start_workers(config: Config, model: str) -> list[Any]:
    """Rollout workers, not yet started."""
    threads = config.rollout.resources.threads or _threads(config.rollout.min_workers)
    return [
        cluster.start_actor(
            RolloutWorker, f"rollout-{index}", config.rollout.resources, f"rollout-{index}", config, model,
            environment=engine_environment(threads), threads=threads,
        )
        for index in range(config.rollout.min_workers)
    ]  # fmt: skip


def _start_ranks(ranks: list[Any], state: str | None, version: int, config: Config) -> list[Any]:
    """Rank 0 hands out the rendezvous, then all ranks start together."""
    if not ranks:
        return []
    address, port = cluster.fetch(
        ranks[0].rendezvous.remote(), config.ray.start_deadline_seconds, "starting a learner"
    )
    return [rank.start.remote(address, port, state, version) for rank in ranks]


def _threads(processes: int) -> int:
    """All cores of this node shared by the processes of one stage (stages run one at a time)."""
    return max(1, (os.cpu_count() or 1) // processes)
