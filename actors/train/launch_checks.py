"""What is checked before any process starts: models, data, and that a resume goes on with the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from airls_ray import files
from airls_ray.config.load import with_absolute_paths
from airls_ray.config.resume import check_resume, describe, read_run_config
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import parts_of
from airls_ray.config.task_sections import CodeTaskConfig, FileTaskConfig
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.check_sampler import problems_drawn
from airls_ray.data.lengths import Lengths, fit_of
from airls_ray.doors import Door, changed, record
from airls_ray.errors import ConfigError, ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.prm.teacher import check_teacher, given_form
from airls_ray.runs.checkpoint_record import Inputs, check_files, check_inputs, fingerprints, read_record
from airls_ray.runs.run_folder import RunFolder
from airls_ray.seeding import derive_seed
from airls_ray.tasks import Problem, Task, make_task
from airls_ray.text.codec import TextCodec

_CHECKED_PROBLEMS = 500


def check_resumed(config: Config, run: RunFolder, checkpoint: Path, progress: Progress) -> None:
    """The run must go on as it began, from a checkpoint that is whole and of the same models and data.

    Raises:
        RunError: in one sentence, what is different.
    """
    record = read_record(checkpoint)
    same = {"prm.path"} if config.prm_learns else set()  # the PRM comes from the checkpoint then
    if record is not None:
        same |= check_inputs(record, run.store.inputs, checkpoint.name)
        check_files(checkpoint, record)
    changed = check_resume(read_run_config(run.config_file), with_absolute_paths(config), same)
    shown = {name: pair for name, pair in changed.items() if name not in ("name", "output", "train.storage")}
    if shown:
        progress.say(f"Resuming with another configuration: {describe(shown)}")


def record_doors(folder: Path, doors: Sequence[Door], progress: Progress) -> None:
    """Keep in `doors.json` which code of the user's is loaded; says what is another one than before."""
    path = folder / "doors.json"
    for sentence in changed(files.read_json(path, list) or [], doors):
        progress.say(sentence)
    if doors:
        files.write_text(path, files.to_json(record(doors), indent=1) + "\n")


def run_inputs(config: Config, base: str) -> Inputs:
    """Fingerprints of what the run reads beside its checkpoints."""
    fields = ("train_file", "test_file", "hold_out_files")
    parts = {f"task.{label}.".replace("..", "."): one for label, one in parts_of(config.task).items()}
    given_prm = config.uses_prm and not config.prm_learns
    return fingerprints(
        {
            "model.path": base,
            "prm.path": config.prm.path if given_prm else None,
            "reference.path": config.reference.path if config.uses_reference else None,
            **{f"{at}{name}": getattr(one, name, None) for at, one in parts.items() for name in fields},
        }
    )


def with_given_prm(config: Config) -> Config:
    """Return the configuration with the form of its frozen PRM, which lies in the PRM's folder.

    A teacher of distillation is a plain language model and has none.

    Raises:
        ConfigError: the method needs a PRM, but none is given; or its form does not learn in the loop.
        ModelError: the folder is no PRM.
    """
    if config.prm_learns and config.prm.head == "policy":
        raise ConfigError(
            "prm.head=policy is a head on a policy that stays as it is, and in the loop the policy learns: "
            "set prm.head=linear, or train the head by `airls-ray train-prm` and give it as prm.path with "
            "method.prm_objective=frozen"
        )
    if config.prm_learns or not config.uses_prm:
        return config
    if config.prm.path is None and config.prm.is_teacher:
        raise ConfigError(
            f"method {config.method.name} learns from a teacher, but prm.path is not set: set it to the "
            "folder or hub name of a language model with the policy's tokenizer"
        )
    if config.prm.path is None:
        raise ConfigError(
            f"method {config.method.name} scores with a PRM that is given, but prm.path is not set: set it "
            "to a PRM folder, as of `airls-ray train-prm` or `checkpoints/iteration_*/prm` of a run"
        )
    return config.model_copy(update={"prm": given_form(config.prm.path, config.prm)})


def warm_start_folder(config: Config) -> Path:
    """Where `airls-ray sft` leaves its policy and `train` looks for it."""
    return config.output / config.name / "sft"


def require_model(config: Config) -> None:
    """Refuse a configuration that names no model and cannot make one.

    Raises:
        ConfigError: its task knows no words, as of files, and gives no size of a vocabulary.
    """
    if config.model.path is not None or config.model.vocabulary:
        return
    if make_task(config.task).vocabulary() is None:
        raise ConfigError(
            f"task.name={config.task.name} needs a trained model: set model.path to its folder or hub "
            "name, or model.vocabulary to the tokens of a new one (2000, for example)"
        )


def base_policy(config: Config) -> str:
    """Folder or hub name of the policy to start from, checked.

    Raises:
        ModelError: it is missing, broken or does not fit the configuration.
    """
    made = warm_start_folder(config)
    if config.model.path is None and not made.exists():
        require_model(config)
        raise ModelError(
            f"there is no policy to start from: {made} does not exist and model.path is not set; "
            "run `airls-ray sft` with this configuration first or set model.path"
        )
    source = config.model.path or str(made)
    context = config.model.context_tokens
    info = check_model_folder(source, context_tokens=context)
    if config.reference.path is not None and config.uses_reference:
        check_teacher(config.reference.path, info, context, "reference model", "reference.path")
    if config.prm.path is not None and config.prm.is_teacher:
        check_teacher(config.prm.path, info, context)
    elif config.prm.path is not None and config.uses_prm:
        check_model_folder(
            config.prm.path,
            context_tokens=context,
            vocab_size=info.vocab_size,
            vocab_of=f"the policy {source}",
        )
    return absolute(source) or source


def check_data(config: Config, policy: str, progress: Progress) -> None:
    """Read the problems as the actors will, so that a bad row or trace shows now and not in hours.

    Of files every problem that the run may draw is read, of generated problems the first ones; a sample is
    graded (`check_before`).

    Raises:
        UserError: a data file is wrong, a problem is too long or the tokenizer is another task's.
    """
    traces = config.method.prm_objective.needs_traces
    draws = problems_drawn(config)
    task = make_task(config.task)
    check_lengths(config, policy, draws, progress, traces=traces, task=task)
    lengths = Lengths.of(config, TextCodec.for_model(config.model, policy, task))
    test = islice(task.problems("test", config.seed), config.search.problems)
    lengths.check(test, "test problems", skip=False, traces=False)
    if config.train.evaluate_every:
        asked = config.train.evaluation
        held_out = list(islice(task.problems("test", config.seed, asked.skip), asked.problems))
        if not held_out:
            raise ConfigError(
                f"train.evaluation.skip is {asked.skip}, but there are no more test problems than that, so "
                "none is left to evaluate on: lower it"
            )
        lengths.check(held_out, "test problems", skip=False, traces=False)
    check_before(config, progress, traces=traces)


def check_lengths(
    config: Config,
    policy: str,
    draws: int,
    progress: Progress,
    *,
    traces: bool,
    stream: str = "problems",
    task: Task | None = None,
) -> None:
    """Refuse prompts and (with `traces`) traces that do not fit the context; says what will be left out.

    Looked at are the first `draws` training problems of the stream whose seed `stream` names; `task` is that
    of the configuration where it has read its files already.

    Raises:
        UserError: as of `check_data`.
    """
    task = task or make_task(config.task)
    codec = TextCodec.for_model(config.model, policy, task)
    lengths = Lengths.of(config, codec)
    is_file = any(isinstance(one, FileTaskConfig | CodeTaskConfig) for one in parts_of(config.task).values())
    train: dict[str, Problem] = {}
    repeated = 0
    drawn = task.problems("train", derive_seed(config.seed, stream))
    for problem in islice(drawn, draws if is_file else min(draws, _CHECKED_PROBLEMS)):
        repeated = repeated + 1 if problem.problem_id in train else 0
        if repeated > len(train):  # a file's problems come again and again
            break
        train[problem.problem_id] = problem
    skip = fit_of(config, codec) is not None
    left_out = lengths.check(train.values(), "training problems", skip=skip, traces=traces)
    if left_out:
        progress.say(left_out)


def absolute(path: str | None) -> str | None:
    """Actors may have another working directory; a hub name stays as it is."""
    return str(Path(path).resolve()) if path is not None and Path(path).is_dir() else path
