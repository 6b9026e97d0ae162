"""Problems and traces as a configuration will see them: what is wrong with them, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, get_args

from airls_ray.config.task_choice import OwnTaskConfig, parts_of
from airls_ray.config.task_sections import CodeTaskConfig, FileTaskConfig
from airls_ray.console.formatting import Cell
from airls_ray.console.progress import Progress, QuietProgress
from airls_ray.data.check_answers import CONVERTED_BY, Effort, Judged, judge_problems
from airls_ray.data.check_report import DataReport, Severity
from airls_ray.data.check_rows import WORDS, Problems, add_shared_problems, read_split, source_of
from airls_ray.data.check_task import steps_of, try_grader, try_task
from airls_ray.data.lengths import Lengths
from airls_ray.errors import DataError, DoorError, ModelError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Split, Task
from airls_ray.text.messages import history_of, needs_template
from airls_ray.text.steps import rule_of

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.text.codec import TextCodec

_BEFORE = Effort(problems=500, seconds=20.0)
"""What a command grades before it starts: enough to find a systematic mistake."""
_FEW = 0.5
"""Share of cases above which it is the grader that does not fit the data."""


def check_config(
    config: Config,
    sample: int | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Check all problems that `config` may draw; of a generated task the first of each split, of a mixture
    each part.

    Lengths are measured where the policy's tokenizer is there.

    Args:
        config: task, model, verifier and lengths.
        sample: most problems of a split that are graded; None: all.
        progress: where bars go.

    Raises:
        RunError: a grader process cannot be started.
    """
    report, progress = DataReport(), progress or QuietProgress()
    parts = parts_of(config.task)
    if parts.get("", config.task) != config.task:
        make_task(config.task)  # another task's problems: its own settings are tried here
    found: list[Problems] = []
    for label, part in parts.items():
        found += _check_part(report, config.model_copy(update={"task": part}), label, sample, progress)
    add_shared_problems(report, found)
    return report


def _check_part(
    report: DataReport, config: Config, label: str, sample: int | None, progress: Progress
) -> list[Problems]:
    """Check a part, and return its problems."""
    codec = None
    try:
        codec = measuring_codec(config)
    except ModelError as error:
        report.add(Severity.NOTE, "lengths that are not measured", [str(error)])
    try:
        _try_own(config)
    except DoorError as error:
        report.add(Severity.ERROR, "code of your own that no run would take", [str(error)])
        return []
    found = [one for split in get_args(Split) if (one := read_split(report, config, split)) is not None]
    for one in found:
        _add_turns(report, config, one)
        traces = sum(len(problem.traces) for problem in one.problems)
        figures: dict[str, Cell] = {
            "from": Path(one.name).name,
            "problems": len(one.problems),
            "traces": traces,
        }
        report.figures[f"{label} {WORDS[one.split]}".strip()] = figures
        graded = len(one.problems) if sample is None else min(sample, len(one.problems))
        with progress.track(f"Grading {WORDS[one.split]} problems", graded) as bar:
            effort = _effort(config, Effort(problems=sample))
            judged = judge_problems(config.task, one.problems, one.places, effort, bar.advance)
        figures |= {"graded problems": judged.problems, "graded traces": judged.traces}
        _add_judged(report, config, one.split, judged)
        _add_steps(report, figures, config, one)
        if codec is not None:
            _add_lengths(report, figures, config, codec, one)
    return found


def check_before(
    config: Config,
    progress: Progress,
    *,
    splits: Sequence[Split] = ("train", "test"),
    traces: bool,
    encodes: bool = True,
) -> None:
    """Check files of problems before a command starts: all rows, and the grader on a sample of them.

    What is no error is said in a line. A generated task of ours has nothing to check; a task or grader of
    the user's own is tried (`try_task`, `try_grader`). Of a mixture each part is checked, and whether one
    trains on another's test problems.

    Args:
        config: task and verifier.
        progress: where the lines go.
        splits: which problems the command uses.
        traces: whether it learns from traces.
        encodes: whether it makes prompts of the problems itself, by `model.prompt_template`.

    Raises:
        DataError: a file cannot be used, a trace that is learned from grades wrong, or a prompt needs a chat
            template.
        DoorError: a task of the user's own gives no problems, or it or a grader no verdicts.
        RunError: a grader process cannot be started.
    """
    parts = parts_of(config.task)
    if list(parts.values()) != [config.task]:
        make_task(config.task)  # says whether the parts fit together
    found: list[Problems] = []
    for part in parts.values():
        alone = config.model_copy(update={"task": part})
        found += _check_part_before(alone, progress, splits, traces, encodes)
    if len(parts) > 1:
        report = DataReport()
        add_shared_problems(report, found)
        report.raise_error()


def _check_part_before(
    config: Config, progress: Progress, splits: Sequence[Split], traces: bool, encodes: bool
) -> list[Problems]:
    """Check a part as `check_before` says, and return its problems."""
    report, found = DataReport(), list[Problems]()
    own = isinstance(config.task, OwnTaskConfig)
    _try_own(config)
    for split in splits:
        if source_of(config.task, split) is None and not own:
            continue
        one = read_split(report, config, split)
        if one is None:
            continue
        found.append(one)
        if encodes:
            _add_turns(report, config, one)
        effort = _effort(config, _BEFORE, traces and split == "train")
        _add_judged(report, config, split, judge_problems(config.task, one.problems, one.places, effort))
        if effort.traces:
            _add_steps(report, {}, config, one)
    report.say(progress)
    report.raise_error()
    return found


def _try_own(config: Config) -> None:
    if isinstance(config.task, OwnTaskConfig):
        try_task(config)
    elif isinstance(config.task, FileTaskConfig) and config.task.grader.is_foreign:
        try_grader(config)


def _effort(config: Config, wanted: Effort, traces: bool = True) -> Effort:
    return replace(
        wanted,
        seed=config.seed,
        traces=traces,
        processes=config.verifier.processes,
        deadline_seconds=config.verifier.deadline_seconds,
    )


def _add_judged(report: DataReport, config: Config, split: Split, judged: Judged) -> None:
    unknown = [*judged.unreadable, *judged.unequal]
    report.add(
        Severity.ERROR if len(unknown) > _FEW * judged.problems else Severity.WARNING,
        f"answers of {WORDS[split]} problems that the grader cannot compare: right responses get 0",
        unknown,
    )
    skips = isinstance(config.task, FileTaskConfig) and config.task.bad_rows == "skip"
    kept = ""
    if skips:
        by_value = isinstance(config.task, FileTaskConfig) and config.task.grader == CONVERTED_BY
        way = " (`airls-ray data convert --drop-wrong-traces` leaves them out)" if by_value else ""
        kept = f" and are kept{way}"
    # Published sets of programs have a few that fail, and the task has no way to go on without them.
    few = isinstance(config.task, CodeTaskConfig) and len(judged.wrong_traces) <= _FEW * judged.traces
    report.add(
        Severity.WARNING if skips or few or split == "test" else Severity.ERROR,
        f"traces of {WORDS[split]} problems that do not grade right{kept}",
        judged.wrong_traces,
    )
    report.add(Severity.WARNING, f"traces of {WORDS[split]} problems without a verdict", judged.lost_traces)


def _add_turns(report: DataReport, config: Config, found: Problems) -> None:
    """Add the prompts with earlier turns where no chat template would write them."""
    if config.model.prompt_template == "plain":
        report.add(
            Severity.ERROR,
            f"{WORDS[found.split]} prompts with earlier turns, which need model.prompt_template=chat",
            [
                found.places[one.problem_id]
                for one in found.problems
                if needs_template(history_of(one.details))
            ],
        )


def _add_steps(report: DataReport, figures: dict[str, Cell], config: Config, found: Problems) -> None:
    """Add how many steps the traces have."""
    task = make_task(config.task)
    counts = [len(steps_of(task, trace)) for problem in found.problems for trace in problem.traces]
    if not counts:
        return
    cuts_none = found.split == "train" and max(counts) == 1 < len(counts)
    figures |= {"steps of a trace, median": median(counts), "steps of a trace, most": max(counts)}
    report.add(
        Severity.WARNING,
        "files whose traces are a single step each, so that a PRM judges whole responses",
        [f"{found.name}: {_cut_by(config, task)} cuts none of {len(counts):,} traces"] if cuts_none else [],
    )


def _cut_by(config: Config, task: Task) -> str:
    """What ends the steps of a task, by the name under which its user can change it."""
    rule = rule_of(task)
    ended = f" with {rule.stop!r}" if rule.stop else ""
    if isinstance(config.task, CodeTaskConfig):
        return f"task.steps={config.task.steps.name}"
    if isinstance(config.task, FileTaskConfig):
        return f"task.steps={rule.name}{ended}"
    told = (
        f"step_delimiter {task.step_delimiter!r}" if rule.name == "delimiter" else f"step_rule {rule.name!r}"
    )
    return f"the {told} of the task {config.task.name}"


def _add_lengths(
    report: DataReport, figures: dict[str, Cell], config: Config, codec: TextCodec, found: Problems
) -> None:
    """Add how long prompts and traces are in the policy's tokens, and those that are too long."""
    limits = Lengths.of(config, codec)
    prompts: list[int] = []
    traces: list[int] = []
    long: list[str] = []
    unwritten: list[str] = []
    for problem in found.problems:
        where = found.places[problem.problem_id]
        try:
            prompt = len(codec.encode_problem(problem.prompt, problem.details))
            sizes = [len(codec.encode_trace(trace)) for trace in problem.traces]
        except DataError as error:
            if not (config.model.prompt_template == "plain" and needs_template(history_of(problem.details))):
                unwritten.append(f"{where}: {error}")  # the others are in the report already
            continue
        prompts.append(prompt)
        traces += sizes
        if prompt > limits.prompt:
            long.append(f"{where}: the prompt has {prompt:,} tokens, more than {limits.prompt:,}")
        elif found.split == "train":
            long += [
                f"{where}: prompt and trace have {prompt + size:,} tokens, more than {limits.context:,}"
                for size in sizes
                if prompt + size > limits.context
            ]
    for name, counts in (("prompt", prompts), ("trace", traces)):
        if counts:
            figures |= {
                f"tokens of a {name}, median": median(counts),
                f"tokens of a {name}, most": max(counts),
            }
    skips = (
        isinstance(config.task, FileTaskConfig) and config.task.bad_rows == "skip" and found.split == "train"
    )
    report.add(
        Severity.WARNING if skips else Severity.ERROR,
        f"prompts and traces of {WORDS[found.split]} problems that do not fit model.context_tokens"
        + (" and are left out" if skips else ""),
        long,
    )
    report.add(Severity.ERROR, f"{WORDS[found.split]} problems that the tokenizer cannot write", unwritten)


def measuring_codec(config: Config) -> TextCodec:
    """Return what measures lengths: by the tokenizer of `model.path`, or of the warm-started policy.

    Raises:
        ModelError: there is none yet, or it cannot be read.
    """
    from airls_ray.text.codec import TextCodec

    folder = config.model.path or config.output / config.name / "sft"
    if config.model.path is None and not Path(folder).is_dir():
        raise ModelError("model.path is not set and the policy is not warm-started yet")
    return TextCodec.for_model(config.model, folder, make_task(config.task))
