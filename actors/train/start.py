"""Connecting to Ray and bringing all actors up side by side."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from actors.cluster import cluster, placement, processes
from actors.cluster.cluster import Demand
from actors.cluster.kept import kept_processes
from actors.cluster.starting import Starting, wait_for_start
from actors.learn.groups import (
    ImplicitPRMGroup,
    NoPRM,
    NoReference,
    PolicyGroup,
    PRMGroup,
    PRMPart,
    PRMScorer,
    ReferencedScorer,
    ReferenceGroup,
)
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.workers import make_fleet, threads_each, wait_for_workers
from actors.train.parts import Parts
from actors.train.tracking import LoopState
from actors.train.weight_sync import NCCLWeightSync, WeightSync
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.adapter_sync import engine_model
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.data.lengths import fit_of
from airls_ray.data.problems import ProblemStream
from airls_ray.data.training_problems import TrainingProblems
from airls_ray.grading.reward_pool import NamedReward
from airls_ray.runs.run_control import RunControl
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec


@dataclass(frozen=True)
class Sources:
    """Where models are read from (at a resume, the checkpoint's folders), and what the user's code is."""

    policy: str
    prm: str | None
    reference: str
    policy_state: str | None = None
    prm_state: str | None = None
    rewards: Sequence[NamedReward] = ()
    """What the configuration names as rewards."""


@contextmanager
def connected(config: Config, *, keep: bool = False) -> Iterator[None]:
    """Be connected to Ray inside the block; whoever connected disconnects, whatever happens.

    A cluster of our own ends with it, and all its processes.

    Args:
        config: where the cluster is.
        keep: whether processes with their imports are kept for what runs next in the block, where the
            cluster is one machine.
    """
    if keep:
        with connected(config):
            # Without CPUs to ask for, all actors of several nodes might come to lie on one of them.
            alone = len(placement.nodes().alive) == 1
            with kept_processes() if alone else nullcontext():
                yield
        return
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

    Returns when sampling and grading can begin; the learners are still coming up (`Parts.starting`).

    `control`: where `airls-ray scale` leaves the number of workers that is wanted.

    Raises:
        UserError: one of them cannot start; all are ended.
    """
    cluster.require_resources(demands(config), config.ray.resources_deadline_seconds)
    failures = config.failures
    with ExitStack() as unless_up:
        # The cluster may outlive this run, and would keep the room of what did start.
        fleet = make_fleet(config, engine_model(config, sources.policy), progress, control)
        unless_up.callback(fleet.close)
        fleet.step(busy=())
        judge = start_verifier(config, sources.policy, sources.rewards)
        unless_up.callback(processes.kill, judge)
        learners = start_learners(config, sources, progress, state)
        unless_up.callback(_end_learners, learners.actors, learners.reference)
        wait_for_start({"verifier": [judge.start.remote()]}, config.ray.start_deadline_seconds, progress)
        wait_for_workers(fleet, config)
        verifier = VerifierHandle(
            judge,
            config.train.deadline_seconds,
            restart=lambda: start_verifier(config, sources.policy, sources.rewards),
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
            starting=learners.starting,
            held_out=evaluation_problems(config),
        )
        if state.version:
            parts.sync.push(state.version)
        unless_up.pop_all()
    return parts


def restart_learners(
    parts: Parts, config: Config, sources: Sources, progress: Progress, state: LoopState, generation: int
) -> Parts:
    """End policy learner, PRM and reference server, start them again from `sources`, and sync the workers.

    `generation`: how often that was done; it tells the new actors' names from the old ones'.

    Raises:
        ProcessLost: one of the new ones died or hung; all of them are ended, so that others have their room.
        UserError: one of them cannot start.
    """
    _end_learners(parts.learners, parts.reference)
    learners = start_learners(config, sources, progress, state, generation)
    with ExitStack() as unless_up:
        # The error's traceback would hold their handles, and their GPUs with them.
        unless_up.callback(_end_learners, learners.actors, learners.reference)
        again = replace(
            parts,
            problems=training_problems(config, state, sources.policy),
            reference=learners.reference,
            prm=learners.prm,
            policy=learners.policy,
            sync=make_sync(config, learners.policy, parts.pool),
            learners=learners.actors,
            starting=learners.starting,
        )
        again.wait_for_learners()
        again.sync.push(state.version)
        unless_up.pop_all()
    return again


def _end_learners(learners: Sequence[Any], reference: ReferenceGroup | NoReference) -> None:
    for actor in learners:
        processes.kill(actor)
    reference.close()


def training_problems(config: Config, state: LoopState, policy: str | None) -> TrainingProblems:
    """The training problems from where the run stands.

    `policy`: its tokenizer measures what is too long; None (simulations): nothing is.
    """
    task, seed = make_task(config.task), derive_seed(config.seed, "problems")
    fit = None
    if policy is not None:
        fit = fit_of(config, TextCodec.for_model(config.model, policy, task))
    train = config.train
    return TrainingProblems(
        ProblemStream(task, "train", seed, start=state.position, fit=fit),
        train.problem_sampler,
        derive_seed(config.seed, "problem_sampler"),
        train.problems_per_iteration,
        lag=train.max_staleness,
        iteration=state.iteration,
        saved=state.problem_sampler,
    )


def evaluation_problems(config: Config) -> pa.Table | None:
    """The test problems of the evaluation during training; None where there is none."""
    asked = config.train.evaluation
    if not config.train.evaluate_every:
        return None
    return ProblemStream(make_task(config.task), "test", config.seed, asked.skip).take(asked.problems)


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
    starting: Starting


def start_learners(
    config: Config, sources: Sources, progress: Progress, state: LoopState, generation: int = 0
) -> Learners:
    """Start policy learner, PRM and reference server side by side; nobody waits for them here.

    Their imports let the rollout workers' go before, which are waited for first.
    """
    deadline = config.train.deadline_seconds
    suffix = f"-again-{generation}" if generation else ""  # a name stays taken for a while after its actor
    policy_ranks = [
        processes.start_actor(
            "actors.learn.learners:PolicyLearner", f"policy-{rank}{suffix}", config.policy.resources, rank,
            config,
            sources.policy, threads=threads_each(config.policy.ranks), yields=True, keep=True,
        )
        for rank in range(config.policy.ranks)
    ]  # fmt: skip
    prm_ranks = [
        processes.start_actor(
            "actors.learn.prm_learner:PRMLearner", f"prm-{rank}{suffix}", config.prm.learner.resources, rank,
            config, sources.policy, sources.prm, threads=threads_each(config.prm.learner.ranks), yields=True,
            keep=True,
        )
        for rank in range(config.prm.learner.ranks if config.prm_learns else 0)
    ]  # fmt: skip
    prm_servers = [
        processes.start_actor(
            "actors.learn.prm_learner:PRMServer",
            f"prm-0{suffix}",
            config.prm.learner.resources,
            config,
            sources.policy,
            sources.prm,
            yields=True,
            keep=True,
        )
        for _ in range(config.uses_prm and not config.prm_learns)
    ]

    def start_reference() -> Any:
        return processes.start_actor(
            "actors.learn.learners:ReferenceServer", "", config.reference.resources, config,
            sources.reference, sources.policy,
            yields=True,
            keep=True,
        )  # fmt: skip

    run = str((config.output / config.name).resolve())
    policy = PolicyGroup("policy learner", policy_ranks, deadline)
    reference: ReferenceGroup | NoReference = NoReference()
    starting = {
        "policy learner": _start_ranks(policy_ranks, sources.policy_state, state.version, run),
        "PRM learner": _start_ranks(prm_ranks, sources.prm_state, state.version, run),
        "PRM": [server.start.remote(run) for server in prm_servers],
    }
    if config.uses_reference:
        reference = ReferenceGroup(start_reference, deadline, config.failures.attempts)
        starting["reference server"] = [reference.starting]
    first = {"policy learner": policy_ranks, "PRM learner": prm_ranks, "PRM": prm_servers}
    if isinstance(reference, ReferenceGroup):
        first["reference server"] = reference.ranks
    kernels = {name: actors[0].kernels.remote() for name, actors in first.items() if actors}
    prm = _prm_part(config, prm_ranks, prm_servers, policy, reference)
    return Learners(
        policy,
        prm,
        reference,
        (*policy_ranks, *prm_ranks, *prm_servers),
        Starting(starting, config.ray.start_deadline_seconds, progress, kernels),
    )


def start_verifier(config: Config, policy: str, rewards: Sequence[NamedReward] = ()) -> Any:
    """The verifier's actor (its model-free start is part of its constructor)."""
    return processes.start_actor(
        "actors.verify.verifier:Verifier", "", config.verifier.resources, config, policy, rewards, keep=True
    )


def _prm_part(
    config: Config,
    ranks: list[Any],
    servers: list[Any],
    policy: PolicyGroup,
    reference: ReferenceGroup | NoReference,
) -> PRMPart:
    """What stands at the PRM's place in the loop."""
    deadline, traces = config.train.deadline_seconds, config.method.prm_objective.needs_traces
    replay = config.prm.replay_iterations > 0
    if servers and isinstance(reference, ReferenceGroup) and config.prm.reads_reference:
        return ReferencedScorer(servers, reference, deadline)
    if servers:
        return PRMScorer(servers, deadline)
    if not ranks:
        return NoPRM()
    if isinstance(reference, ReferenceGroup) and config.method.prm_objective.against_reference:
        return ImplicitPRMGroup(ranks, reference, traces, replay, deadline)
    return PRMGroup(ranks, policy, traces, replay, deadline)


def _start_ranks(ranks: list[Any], state: str | None, version: int, run: str) -> list[Any]:
    """Rank 0 says where all meet; its answer goes from process to process, and nobody waits here."""
    if not ranks:
        return []
    meeting = ranks[0].rendezvous.remote()
    return [rank.start.remote(meeting, state, version, run) for rank in ranks]
