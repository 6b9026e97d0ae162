"""Starting a run: checks first, then all actors side by side, then the loop, then what it has taught."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors import cluster
from actors.cluster import Demand
from actors.evaluate import evaluate_policy, finish_run
from actors.groups import (
    NCCLWeightSync,
    NoPRM,
    NoReference,
    PolicyGroup,
    PRMGroup,
    ReferenceGroup,
    VerifierHandle,
    WeightSync,
)
from actors.loop import Parts, train
from actors.rollout_pool import RolloutPool
from actors.rollout_worker import RolloutWorker
from actors.tracking import LoopState, Tracker, read_state
from actors.vllm_engine import engine_environment
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.progress import Progress, make_progress
from airls_ray.run_folder import RunFolder
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec, encode_traces

_CHECKED_PROBLEMS = 500


@dataclass(frozen=True)
class Sources:
    """Where models are read from; at a resume, the checkpoint's folders."""

    policy: str
    prm: str | None
    reference: str
    policy_state: str | None = None
    prm_state: str | None = None


def run_training(config: Config, resume: bool = False) -> dict[str, Any]:
    """Train by `config` and return the summary that is also written to the run folder.

    Raises:
        UserError: with one sentence; the run folder keeps what was written.
    """
    started = time.perf_counter()
    run = RunFolder(config.output / config.name, config.train.keep_checkpoints)
    progress = make_progress()
    base = base_policy(config)
    checkpoint = run.latest_checkpoint() if resume else None
    state = read_state(checkpoint) if checkpoint else LoopState()
    sources = _sources(config, base, checkpoint)
    _check_data(config, base)
    run.create(config, resume=resume)
    if resume:
        run.rewind(state.iteration)
    with connected(config), closing(start_parts(config, sources, progress, state)) as parts:
        test = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)
        before = evaluate_policy(parts, config, test, run, progress, name="base", resume=state.version > 0)
        started_loop = time.perf_counter()
        with progress.track("Training", config.iterations, done=state.iteration) as bar:
            state = train(parts, config, state, Tracker(run, config, bar))
        started_search = time.perf_counter()
        after = evaluate_policy(parts, config, test, run, progress, name="trained", resume=False)
        seconds = {
            "start": started_loop - started,
            "train": started_search - started_loop,
            "search": time.perf_counter() - started_search,
        }
        return finish_run(parts, config, run, state, before, after, seconds)


def warm_start_folder(config: Config) -> Path:
    """Where `airls-ray sft` leaves its policy and `train` looks for it."""
    return config.output / config.name / "sft"


def base_policy(config: Config) -> str:
    """Folder or hub name of the policy to start from, checked.

    Raises:
        ModelError: it is missing, broken or does not fit the configuration.
    """
    made = warm_start_folder(config)
    if config.model.path is None and not made.exists():
        raise ModelError(
            f"there is no policy to start from: {made} does not exist and model.path is not set; "
            "run `airls-ray sft` with this configuration first or set model.path"
        )
    source = config.model.path or str(made)
    context = config.model.context_tokens
    info = check_model_folder(source, context_tokens=context)
    if config.prm.path is not None and config.uses_prm:
        check_model_folder(
            config.prm.path,
            context_tokens=context,
            vocab_size=info.vocab_size,
            vocab_of=f"the policy {source}",
        )
    return _absolute(source) or source


def _check_data(config: Config, policy: str) -> None:
    """Read the first problems as the actors will, so that a bad row or trace shows now and not in minutes.

    Raises:
        UserError: a data file is wrong, a trace is too long or the tokenizer is another task's.
    """
    task = make_task(config.task)
    codec = TextCodec.from_folder(policy, task, config.model.prompt_template)
    count = min(_CHECKED_PROBLEMS, config.iterations * config.train.problems_per_iteration)
    problems = ProblemStream(task, "train", derive_seed(config.seed, "problems")).take(count)
    if config.uses_prm:
        encode_traces(problems, codec, config.model.context_tokens)


def _absolute(path: str | None) -> str | None:
    """Actors may have another working directory; a hub name stays as it is."""
    return str(Path(path).resolve()) if path is not None and Path(path).is_dir() else path


def _sources(config: Config, base: str, checkpoint: Path | None) -> Sources:
    if checkpoint is None:
        return Sources(policy=base, prm=_absolute(config.prm.path) or base, reference=base)
    folder = checkpoint.resolve()
    return Sources(
        policy=str(folder / "policy"),
        prm=str(folder / "prm"),
        reference=base,
        policy_state=str(folder / "state" / "policy"),
        prm_state=str(folder / "state" / "prm"),
    )


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
    if config.uses_prm:
        asked.append(Demand("PRM learner", config.prm.learner.resources, config.prm.learner.ranks))
    if config.uses_reference:
        asked.append(Demand("reference server", config.reference.resources))
    return asked


def start_parts(config: Config, sources: Sources, progress: Progress, state: LoopState) -> Parts:
    """Start all actors side by side, with a line and its seconds for each."""
    from actors.learners import PolicyLearner, PRMLearner, ReferenceServer
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
        for rank in range(config.prm.learner.ranks if config.uses_prm else 0)
    ]  # fmt: skip
    references = [
        cluster.start_actor(
            ReferenceServer, "reference", config.reference.resources, config, sources.reference
        )
        for _ in range(config.uses_reference)
    ]
    verifier = cluster.start_actor(Verifier, "verifier", config.verifier.resources, config, sources.policy)
    policy = PolicyGroup("policy learner", policy_ranks, deadline)
    prm = PRMGroup(prm_ranks, policy, config.prm.replay_iterations > 0, deadline) if prm_ranks else NoPRM()
    starting = {
        "rollout worker": [worker.start.remote() for worker in workers],
        "verifier": [verifier.start.remote()],
        "policy learner": _start_ranks(policy_ranks, sources.policy_state, state.version, config),
        "PRM learner": _start_ranks(prm_ranks, sources.prm_state, state.version, config),
        "reference server": [reference.start.remote() for reference in references],
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
        reference=ReferenceGroup("reference server", references, deadline) if references else NoReference(),
        prm=prm,
        policy=policy,
        sync=sync,
        actors=(*workers, *policy_ranks, *prm_ranks, *references, verifier),
    )


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
    import os

    return max(1, (os.cpu_count() or 1) // processes)
