"""Starting a run: checks first, then all actors side by side, then the loop, then what it has taught."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from actors.async_loop import train_async
from actors.evaluate import Samples, evaluate_policy, finish_run
from actors.loop import Parts, train
from actors.monitoring import Monitor
from actors.recovery import Recovery
from actors.start import Sources, connected, restart_learners, start_parts
from actors.tracking import LoopState, Shown, Tracker, read_state
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.prm_folder import read_prm_form
from airls_ray.models.check import check_model_folder
from airls_ray.progress import Progress, make_progress
from airls_ray.run_control import RunControl
from airls_ray.run_folder import RunFolder
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec, encode_traces

_CHECKED_PROBLEMS = 500


def run_training(config: Config, resume: bool = False) -> dict[str, Any]:
    """Train by `config` and return the summary that is also written to the run folder.

    Raises:
        UserError: with one sentence; the run folder keeps what was written.
    """
    started = time.perf_counter()
    run = RunFolder(config.output / config.name, config.train.keep_checkpoints)
    progress = make_progress()
    config = with_given_prm(config)
    base = base_policy(config)
    checkpoint = run.latest_checkpoint() if resume else None
    state = read_state(checkpoint) if checkpoint else LoopState()
    _check_data(config, base)
    run.create(config, resume=resume)
    run.use(checkpoint)
    if resume:
        run.rewind(state.iteration)
    control = RunControl(run.path, config.iterations)
    with ended(control), connected(config):
        parts = start_parts(config, _sources(config, base, checkpoint), progress, state, control)

        def rebuild(parts: Parts, state: LoopState, folder: Path | None, times: int) -> Parts:
            return restart_learners(parts, config, _sources(config, base, folder), progress, state, times)

        recovery = Recovery(parts, state, config, run, control, rebuild, progress)
        with closing(recovery):
            summary = run_stages(recovery, config, run, control, progress, started)
    run.use(None)
    return summary


def run_stages(
    recovery: Recovery,
    config: Config,
    run: RunFolder,
    control: RunControl,
    progress: Progress,
    started: float,
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
            shown.go_to(state.iteration)
            learn_from = train_async if config.train.max_staleness else train
            tracker = Tracker(run, config, shown, progress.say, control, monitor, recovery.rebuilds)
            return learn_from(parts, config, state, tracker)

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


def with_given_prm(config: Config) -> Config:
    """Return the configuration with the form of its frozen PRM, which lies in the PRM's folder.

    Raises:
        ConfigError: the method needs a PRM, but none is given.
        ModelError: the folder is no PRM.
    """
    if config.prm_learns or not config.uses_prm:
        return config
    if config.prm.path is None:
        raise ConfigError(
            f"method {config.method.name} scores with a PRM that is given, but prm.path is not set: set it "
            "to a PRM folder, such as that of `airls-ray train-prm` or `checkpoints/latest/prm` of a run"
        )
    return config.model_copy(update={"prm": read_prm_form(Path(config.prm.path), config.prm)})


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
    if config.prm_learns and config.method.prm_objective != "prime":
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
        prm=str(folder / "prm") if config.prm_learns else _absolute(config.prm.path),
        reference=base,
        policy_state=str(folder / "state" / "policy"),
        prm_state=str(folder / "state" / "prm"),
    )
