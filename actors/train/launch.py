"""Starting a run: checks first, then all actors side by side, then the loop, then what it has taught."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.cluster.monitoring import Monitor
from actors.train.async_loop import train_async
from actors.train.evaluate import Samples, evaluate_policy, finish_run
from actors.train.interrupts import StopSignals
from actors.train.launch_checks import (
    absolute,
    base_policy,
    check_data,
    check_resumed,
    record_doors,
    run_inputs,
    with_given_prm,
)
from actors.train.loop import train
from actors.train.parts import Parts
from actors.train.recovery import Recovery
from actors.train.start import Sources, connected, restart_learners, start_parts
from actors.train.tracking import LoopState, Shown, Tracker, read_state
from airls_ray.adapter_sync import merged_because
from airls_ray.config.named import find_doors
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_method import try_own_code
from airls_ray.data.check_rewards import try_rewards
from airls_ray.data.check_sampler import try_sampler
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import Interrupted
from airls_ray.grading.reward_pool import find_rewards
from airls_ray.planning.room import check_room
from airls_ray.planning.warnings import truncated_rollouts
from airls_ray.runs.best_metric import best_metric_warning, check_best_metric
from airls_ray.runs.early_stop import early_stop
from airls_ray.runs.mirror import Mirror, NoCopies, open_mirror
from airls_ray.runs.run_control import RunControl
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.storage import without_credentials
from airls_ray.runs.trackers import TrackedRun, Trackers
from airls_ray.tasks import make_task


def run_training(config: Config, resume: bool = False, *, again: str = "with --resume") -> dict[str, Any]:
    """Train by `config` and return the summary that is also written to the run folder.

    `again`: how a run that was interrupted is gone on with, in words.

    Raises:
        UserError: with one sentence; the run folder keeps what was written.
        Interrupted: by Ctrl-C or SIGTERM, where to go on.
    """
    started = time.perf_counter()
    check_best_metric(config)
    kept = config.train.keep_checkpoints, config.train.keep_best, config.train.best_metric
    run = RunFolder(config.output / config.name, *kept)
    progress = make_progress()
    with run.locked(), ExitStack() as stack:
        mirror = open_mirror(config, run, progress.say)
        if mirror is not None:
            stack.enter_context(mirror)
            _join_storage(mirror, resume, progress)
        try:
            return _run_locked(config, run, mirror, resume, progress, started)
        except KeyboardInterrupt:
            raise Interrupted(f"{run.path} stays readable; {again} {going_on(run, config)}") from None


def going_on(run: RunFolder, config: Config) -> str:
    """Where a resume of the run would begin, and what it would do again."""
    checkpoint, lines = run.latest_checkpoint(), run.read_metrics()
    done = read_state(checkpoint).iteration if checkpoint else 0
    reached = max((line["iteration"] for line in lines), default=0)
    again = f" ({reached - done} iterations are done again)" if reached > done else ""
    if checkpoint is None:
        return f"iteration 1 of {config.iterations} comes next{again}, since there is no checkpoint"
    if done >= config.iterations:
        return "the evaluation comes next, since all iterations are done"
    if stop := early_stop(config, [line for line in lines if line["iteration"] <= done]):
        return f"the evaluation comes next. {stop.sentence}"
    return f"iteration {done + 1} of {config.iterations} comes next{again}"


def _join_storage(mirror: Mirror, resume: bool, progress: Progress) -> None:
    """Bring here what a resume goes on from; a new run must find nothing there."""
    if not resume:
        mirror.require_free()
    elif fetched := mirror.fetch():
        progress.say(f"Fetched {fetched} from the storage")


def _run_locked(
    config: Config, run: RunFolder, mirror: Mirror | None, resume: bool, progress: Progress, started: float
) -> dict[str, Any]:
    """The run itself, in a folder that is ours."""
    found = find_doors(config)
    config = with_given_prm(config)
    base = base_policy(config)
    checkpoint = run.latest_checkpoint() if resume else None
    run.store.inputs = run_inputs(config, base)
    if checkpoint is not None:
        check_resumed(config, run, checkpoint, progress)
    state = read_state(checkpoint) if checkpoint else LoopState()
    rewards = find_rewards(config.task.reward)
    try_rewards(config, rewards, progress)
    try_own_code(config, progress)
    trackers = Trackers(config.train.trackers, progress.say)
    try_sampler(config, progress)
    check_data(config, base, progress)
    said = [*truncated_rollouts(config), *check_room(config), best_metric_warning(config)]
    said.append(merged_because(config))
    for warning in filter(None, said):
        progress.say(f"Warning: {warning}")
    run.create(config, resume=resume)
    record_doors(run.path, found, progress)
    if resume:
        progress.say(f"Resuming {run.path}: {going_on(run, config)}")
    run.use(checkpoint)
    if resume:
        run.rewind(state.iteration)
    control = RunControl(run.path, config.iterations)
    shown = without_credentials(config).model_dump(mode="json")
    trackers.start(TrackedRun(config.name, run.path, shown, state.iteration))
    with trackers, ended(control), connected(config):
        sources = replace(_sources(config, base, checkpoint), rewards=rewards)
        parts = start_parts(config, sources, progress, state, control)

        def rebuild(parts: Parts, state: LoopState, folder: Path | None, times: int) -> Parts:
            return restart_learners(parts, config, _sources(config, base, folder), progress, state, times)

        recovery = Recovery(parts, state, config, run, control, rebuild, progress)
        with closing(recovery):
            summary = run_stages(recovery, config, run, control, mirror, progress, started, trackers)
        trackers.summary(summary)
        trackers.file(run.report_file)
    run.use(None)
    if mirror is not None:
        with progress.phase("last copy to the storage"):
            mirror.finish()
    return summary


def run_stages(
    recovery: Recovery,
    config: Config,
    run: RunFolder,
    control: RunControl,
    mirror: Mirror | None,
    progress: Progress,
    started: float,
    trackers: Trackers,
) -> dict[str, Any]:
    """Sample the test problems, train, sample them again and measure; returns the summary."""
    test = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)

    def evaluate(name: str, resume: bool) -> Samples:
        return recovery.work(
            lambda parts, _: evaluate_policy(parts, config, test, run, progress, name=name, resume=resume)
        )

    control.say(phase="base evaluation")
    before = evaluate("base", resume=recovery.state.version > 0)
    started_loop = time.perf_counter()
    with (
        progress.track("Training", config.iterations, done=recovery.state.iteration) as bar,
        closing(Monitor(config.name)) as monitor,
    ):
        shown = Shown(bar, recovery.state.iteration)

        def learn(parts: Parts, state: LoopState) -> LoopState:
            parts.wait_for_learners()
            shown.go_to(state.iteration)
            learn_from = train_async if config.train.max_staleness else train
            tracker = Tracker(
                run, config, shown, progress.say, control, monitor, recovery.rebuilds, mirror or NoCopies(),
                stop, trackers,
            )  # fmt: skip
            return learn_from(parts, config, state, tracker)

        stop = StopSignals(config.train.grace_seconds)
        with stop.installed():
            recovery.state = recovery.work(learn)
    started_search = time.perf_counter()
    control.say(phase="evaluation")
    after = evaluate("trained", resume=False)
    seconds = {"start": started_loop - started, "train": started_search - started_loop}

    def finish(parts: Parts, state: LoopState) -> dict[str, Any]:
        taken = seconds | {"search": time.perf_counter() - started_search}
        return finish_run(parts, config, run, state, before, after, taken)

    return recovery.work(finish)


@contextmanager
def ended(control: RunControl) -> Iterator[None]:
    """Say in the run's status how it ended."""
    try:
        yield
    except KeyboardInterrupt:
        control.say(phase="interrupted")
        raise
    except BaseException as error:
        control.say(phase="failed", last_error=str(error).splitlines()[0] if str(error) else repr(error))
        raise
    control.say(phase="finished")


def _sources(config: Config, base: str, checkpoint: Path | None) -> Sources:
    reference = absolute(config.reference.path) or base
    if checkpoint is None:
        return Sources(policy=base, prm=absolute(config.prm.path) or base, reference=reference)
    folder = checkpoint.resolve()
    return Sources(
        policy=str(folder / "policy"),
        prm=str(folder / "prm") if config.prm_learns else absolute(config.prm.path),
        reference=reference,
        policy_state=str(folder / "state" / "policy"),
        prm_state=str(folder / "state" / "prm"),
    )
