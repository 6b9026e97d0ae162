"""Starting a run: checks first, then all actors side by side, then the loop, then what it has taught."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from actors.evaluate import evaluate_policy, finish_run
from actors.loop import train
from actors.start import Sources, connected, start_parts
from actors.tracking import LoopState, Tracker, read_state
from airls_ray.checkpoint_record import Inputs, check_files, check_inputs, fingerprints, read_record
from airls_ray.config.resume import check_resume, describe, read_run_config
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.prm_folder import read_prm_form
from airls_ray.mirror import Mirror, NoCopies, open_mirror
from airls_ray.models.check import check_model_folder
from airls_ray.progress import Progress, make_progress
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
    kept = config.train.keep_checkpoints, config.train.keep_best, config.train.best_metric
    run = RunFolder(config.output / config.name, *kept)
    progress = make_progress()
    with run.locked(), ExitStack() as stack:
        mirror = open_mirror(config, run, progress.say)
        if mirror is not None:
            stack.enter_context(mirror)
            _join_storage(mirror, resume, progress)
        return _run_locked(config, run, mirror, resume, progress, started)


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
    config = with_given_prm(config)
    base = base_policy(config)
    checkpoint = run.latest_checkpoint() if resume else None
    run.store.inputs = _inputs(config, base)
    if checkpoint is not None:
        _check_resume(config, run, checkpoint, progress)
    state = read_state(checkpoint) if checkpoint else LoopState()
    sources = _sources(config, base, checkpoint)
    _check_data(config, base)
    run.create(config, resume=resume)
    run.use(checkpoint)
    if resume:
        run.rewind(state.iteration)
    with connected(config), closing(start_parts(config, sources, progress, state)) as parts:
        test = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)
        before = evaluate_policy(parts, config, test, run, progress, name="base", resume=state.version > 0)
        started_loop = time.perf_counter()
        with progress.track("Training", config.iterations, done=state.iteration) as bar:
            tracker = Tracker(run, config, bar, progress.say, mirror or NoCopies())
            state = train(parts, config, state, tracker)
        started_search = time.perf_counter()
        after = evaluate_policy(parts, config, test, run, progress, name="trained", resume=False)
        seconds = {
            "start": started_loop - started,
            "train": started_search - started_loop,
            "search": time.perf_counter() - started_search,
        }
        summary = finish_run(parts, config, run, state, before, after, seconds)
    run.use(None)
    if mirror is not None:
        with progress.phase("last copy to the storage"):
            mirror.finish()
    return summary


def _check_resume(config: Config, run: RunFolder, checkpoint: Path, progress: Progress) -> None:
    """The run must go on as it began, from a checkpoint that is whole and of the same models and data.

    Raises:
        RunError: in one sentence, what is different.
    """
    record = read_record(checkpoint)
    same = {"prm.path"} if config.prm_learns else set()  # the PRM comes from the checkpoint then
    if record is not None:
        same |= check_inputs(record, run.store.inputs, checkpoint.name)
        check_files(checkpoint, record)
    changed = check_resume(read_run_config(run.config_file), config, same)
    shown = {name: pair for name, pair in changed.items() if name not in ("name", "output", "train.storage")}
    if shown:
        progress.say(f"Resuming with another configuration: {describe(shown)}")


def _inputs(config: Config, base: str) -> Inputs:
    """Fingerprints of what the run reads beside its checkpoints."""
    task = config.task.model_dump()
    fields = ("train_file", "test_file", "hold_out_files")
    given_prm = config.uses_prm and not config.prm_learns
    return fingerprints(
        {
            "model.path": base,
            "prm.path": config.prm.path if given_prm else None,
            **{f"task.{name}": task.get(name) for name in fields},
        }
    )


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
