"""Connecting to Ray and bringing all actors up side by side."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from actors import cluster
from actors.cluster import Demand
from actors.groups import (
    ImplicitPRMGroup,
    NoPRM,
    NoReference,
    PolicyGroup,
    PRMGroup,
    PRMPart,
    PRMScorer,
    ReferenceGroup,
)
from actors.loop import Parts
from actors.rollout_pool import RolloutPool
from actors.tracking import LoopState
from actors.verifier_handle import VerifierHandle
from actors.weight_sync import NCCLWeightSync, WeightSync
from actors.workers import make_fleet, threads_each, wait_for_workers
from airls_ray.config.schema import Config
from airls_ray.data.lengths import fit_of
from airls_ray.data.problems import ProblemStream
from airls_ray.progress import Progress
from airls_ray.run_control import RunControl
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec


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


def start_parts(
    config: Config, sources: Sources, progress: Progress, state: LoopState, control: RunControl | None = None
) -> Parts:
    """Start all actors side by side, with a line and its seconds for each.

    `control`: where `airls-ray scale` leaves the number of workers that is wanted.
    """
    cluster.require_resources(demands(config), config.ray.resources_deadline_seconds)
    fleet = make_fleet(config, sources.policy, progress, control)
    fleet.step(busy=())
    failures = config.failures
    judge = start_verifier(config, sources.policy)
    learners = start_learners(config, sources, progress, state)
    wait_for_start({"verifier": [judge.start.remote()]}, config, progress)
    wait_for_workers(fleet, config)
    verifier = VerifierHandle(
        judge,
        config.train.deadline_seconds,
        restart=lambda: start_verifier(config, sources.policy),
        attempts=failures.attempts,
    )
    pool = RolloutPool(fleet, config.rollout.deadline_seconds, failures, config.rollout.shares_per_worker)
    parts = Parts(
        problems=training_problems(config, state, sources.policy),
        pool=pool,
        verifier=verifier,
        reference=learners.reference,
        prm=learners.prm,
        policy=learners.policy,
        sync=make_sync(config, learners.policy, pool),
        learners=learners.actors,
    )
    if state.version:
        parts.sync.push(state.version)
    return parts


def restart_learners(
    parts: Parts, config: Config, sources: Sources, progress: Progress, state: LoopState, generation: int
) -> Parts:
    """End policy learner, PRM and reference server, start them again from `sources`, and sync the workers.

    `generation`: how often that was done; it tells the new actors' names from the old ones'.
    """
    for actor in parts.learners:
        cluster.kill(actor)
    parts.reference.close()
    learners = start_learners(config, sources, progress, state, generation)
    again = replace(
        parts,
        problems=training_problems(config, state, sources.policy),
        reference=learners.reference,
        prm=learners.prm,
        policy=learners.policy,
        sync=make_sync(config, learners.policy, parts.pool),
        learners=learners.actors,
    )
    again.sync.push(state.version)
    return again


def training_problems(config: Config, state: LoopState, policy: str | None) -> ProblemStream:
    """The training problems from where the run stands.

    `policy`: its tokenizer measures what is too long; None (simulations): nothing is.
    """
    task, seed = make_task(config.task), derive_seed(config.seed, "problems")
    fit = None
    if policy is not None:
        fit = fit_of(config, TextCodec.from_folder(policy, task, config.model.prompt_template))
    return ProblemStream(task, "train", seed, start=state.position, fit=fit)


def make_sync(config: Config, policy: PolicyGroup, pool: RolloutPool) -> WeightSync | NCCLWeightSync:
    """How weights reach the workers."""
    engine = config.rollout.engine
    if engine.weight_transfer == "nccl":
        return NCCLWeightSync(policy, pool, engine.tensor_parallel)
    return WeightSync(policy, pool)


@dataclass(frozen=True)
class Learners:
    """Policy learner, PRM and reference server, and their actors (the reference server owns its own)."""

    policy: PolicyGroup
    prm: PRMPart
    reference: ReferenceGroup | NoReference
    actors: tuple[Any, ...]


def start_learners(
    config: Config, sources: Sources, progress: Progress, state: LoopState, generation: int = 0
) -> Learners:
    """Start policy learner, PRM and reference server side by side and wait for them."""
    from actors.learners import PolicyLearner, ReferenceServer
    from actors.prm_learner import PRMLearner, PRMServer

    deadline = config.train.deadline_seconds
    suffix = f"-again-{generation}" if generation else ""  # a name stays taken for a while after its actor
    policy_ranks = [
        cluster.start_actor(
            PolicyLearner, f"policy-{rank}{suffix}", config.policy.resources, rank, config, sources.policy,
            threads=threads_each(config.policy.ranks),
        )
        for rank in range(config.policy.ranks)
    ]  # fmt: skip
    prm_ranks = [
        cluster.start_actor(
            PRMLearner, f"prm-{rank}{suffix}", config.prm.learner.resources, rank, config, sources.policy,
            sources.prm, threads=threads_each(config.prm.learner.ranks),
        )
        for rank in range(config.prm.learner.ranks if config.prm_learns else 0)
    ]  # fmt: skip
    prm_servers = [
        cluster.start_actor(
            PRMServer, f"prm-0{suffix}", config.prm.learner.resources, config, sources.policy, sources.prm
        )
        for _ in range(config.uses_prm and not config.prm_learns)
    ]

    def start_reference() -> Any:
        return cluster.start_actor(ReferenceServer, "", config.reference.resources, config, sources.reference)

    policy = PolicyGroup("policy learner", policy_ranks, deadline)
    reference: ReferenceGroup | NoReference = NoReference()
    starting = {
        "policy learner": _start_ranks(policy_ranks, sources.policy_state, state.version, config),
        "PRM learner": _start_ranks(prm_ranks, sources.prm_state, state.version, config),
        "PRM": [server.start.remote() for server in prm_servers],
    }
    if config.uses_reference:
        reference = ReferenceGroup(start_reference, deadline, config.failures.attempts)
        starting["reference server"] = [reference.starting]
    prm = _prm_part(config, prm_ranks, prm_servers, policy, reference)
    wait_for_start(starting, config, progress)
    return Learners(policy, prm, reference, (*policy_ranks, *prm_ranks, *prm_servers))


def start_verifier(config: Config, policy: str) -> Any:
    """The verifier's actor (its model-free start is part of its constructor)."""
    from actors.verifier import Verifier

    return cluster.start_actor(Verifier, "", config.verifier.resources, config, policy)


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


def _start_ranks(ranks: list[Any], state: str | None, version: int, config: Config) -> list[Any]:
    """Rank 0 hands out the rendezvous, then all ranks start together."""
    if not ranks:
        return []
    address, port = cluster.fetch(
        ranks[0].rendezvous.remote(), config.ray.start_deadline_seconds, "starting a learner"
    )
    return [rank.start.remote(address, port, state, version) for rank in ranks]
