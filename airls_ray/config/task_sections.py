"""Settings of the built-in tasks; `name` decides which fields there are (`task_choice.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from airls_ray import doors
from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import one_alone
from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.reward_section import RewardConfig
from airls_ray.config.task_doors import (
    CodeFormatConfig,
    CodeStepsConfig,
    FormatConfig,
    GraderConfig,
    StepRuleConfig,
)


class RewardedTaskConfig(StrictModel):
    """What every task has."""

    reward: Annotated[list[RewardConfig], BeforeValidator(one_alone)] = Field(default_factory=list)
    """Rewards beside the outcome (docs/doors.md): one name, or a list of names or of sections. Their weighted
    sum is added to `method.outcome_weight` times the outcome."""

    @field_validator("reward")
    @classmethod
    def _labels_differ(cls, rewards: list[RewardConfig]) -> list[RewardConfig]:
        labels = [one.shown for one in rewards]
        twice = next((one for one in labels if labels.count(one) > 1 or one == "total"), None)
        if twice is not None:
            raise ValueError(
                f"two rewards would be called {twice} in the metrics: give one another `label`"
                if twice != "total"
                else "no reward may be called total, as their sum is: set `label`"
            )
        return rewards


class ArithmeticTaskConfig(RewardedTaskConfig):
    """Chains of modular arithmetic, evaluated from left to right; step truth is exact."""

    name: Literal["arithmetic"] = "arithmetic"
    """Which task: arithmetic, countdown, file or code."""
    operations: Annotated[int, Field(ge=1, le=64)] = 6
    """Number of operations of a chain, one reasoning step each."""
    modulus: Annotated[int, Field(ge=2, le=1000)] = 10
    """All numbers lie in [0, modulus)."""
    train_file: Path | None = None
    """Train on the problems of this file (as `airls-ray data unsolved` and `data make` write)."""
    test_problems: PositiveInt = 500
    """Size of the test set; its problems never occur in training."""


class CountdownTaskConfig(RewardedTaskConfig):
    """Reach a target from given numbers with + - * /; step truth by exhaustive search."""

    name: Literal["countdown"] = "countdown"
    """Which task: arithmetic, countdown, file or code."""
    numbers: Annotated[int, Field(ge=2, le=6)] = 3
    """How many numbers a problem gives."""
    train_numbers: list[Annotated[int, Field(ge=2, le=6)]] = Field(default_factory=list)
    """Counts of numbers of training problems, drawn evenly; empty: `numbers` alone. Test problems have
    `numbers`."""
    max_number: Annotated[int, Field(ge=3, le=999)] = 99
    """Largest given number; targets lie in [1, max_number] too, intermediate results may not exceed 9999."""
    traces_per_problem: PositiveInt = 1
    """How many different solutions a training problem carries (fewer where fewer exist)."""
    train_file: Path | None = None
    """Train on the problems of this file (as `airls-ray data unsolved` and `data make` write)."""
    test_file: Path | None = None
    """Public test file (JSONL with `input` and `output`); its problems are kept out of training."""
    hold_out_files: list[Path] = Field(default_factory=list)
    """More public test files, with any count of numbers, whose problems are kept out of training."""
    hold_out_targets: bool = True
    """Keep the targets of these files out of training, too, as the authors of the public files did."""
    test_problems: PositiveInt = 500
    """Size of the generated test set, or how many problems of `test_file` are used at most."""


class FileTaskConfig(RewardedTaskConfig):
    """Problems of the user's own, by default JSONL or Parquet with `prompt`, `answer` and `traces`; with
    `format` or `fields` any JSONL, JSON, CSV, Parquet or Arrow file, or a data set of the hub."""

    name: Literal["file"] = "file"
    """Which task: arithmetic, countdown, file or code."""
    train_file: Path
    """Problems to train on; rows without a trace serve rollouts but never the reference side. Of the hub:
    `hub:OWNER/NAME[:CONFIG]:SPLIT@REVISION`, for example `hub:openai/gsm8k:main:train@` and 40 hex digits."""
    test_file: Path
    """Problems to measure on; a problem that occurs in both files is an error."""
    format: FormatConfig | None = None
    """Published data set, or library (verl, trl), whose fields the files have, or your own (docs/doors.md);
    null: `fields`, else our own fields or, by what a row has, those of verl or TRL."""
    fields: FieldsConfig = FieldsConfig()
    """Where our fields are in a row; they go before those of `format`."""
    bad_rows: Literal["error", "skip"] = "error"
    """What a row that cannot be used does: stop with one sentence, or be left out, counted and logged. The
    same goes for training problems and traces that are longer than the context. A trace that grades wrong
    stops a command that learns from it, too, and with `skip` is kept and said."""
    prompt_template: str = "{prompt}"
    """The user's message around a problem, which stands at `{prompt}` (once)."""
    system_prompt: str = ""
    """Said before: the system message of a chat template (`model.prompt_template=chat`), else text before
    the prompt with a blank line between. Empty: none."""
    step_delimiter: str = "\n\n"
    """Text that ends a reasoning step, for `steps: delimiter`."""
    steps: StepRuleConfig = StepRuleConfig(name="delimiter")
    """What ends a step: `delimiter`, `lines`, `blank_lines`, `sentences`, `numbered` (before `2.` or `Step
    2:`), `code_lines` (whole statements), or your own (docs/doors.md). `sentences`, `numbered` and
    `code_lines` cost a search more tokens: no token alone tells the engine to stop."""
    grader: GraderConfig = GraderConfig(name="math")
    """`exact`: the text after `answer_marker`, stripped, equals the answer. `math`: math-verify. Or your own
    (docs/doors.md). Problems with choices are graded by their letter in any case."""
    answer_marker: str = "####"
    """For `exact`: where the final answer begins; without it the last line counts."""
    test_problems: PositiveInt = 500
    """How many problems of the test file are used at most."""

    @field_validator("format", mode="before")
    @classmethod
    def _is_of_answers(cls, name: Any) -> Any:
        if isinstance(name, str) and name in doors.builtins(doors.kind_of("code format")):
            raise ValueError(
                f"must be a format of answers, but {name} is one of programs: set task.name=code"
            )
        return name

    @field_validator("prompt_template")
    @classmethod
    def _holds_the_prompt(cls, template: str) -> str:
        if template.count("{prompt}") != 1:
            raise ValueError(f"must hold {{prompt}} exactly once, but is {template!r}")
        return template


class SandboxConfig(StrictModel):
    """What a generated program may use, and what must protect the machine from it (docs/code_grader.md)."""

    wall_seconds: PositiveFloat = 10.0
    """Of all tests of one response together; `verifier.deadline_seconds` must be 5 s more."""
    cpu_seconds: PositiveInt = 10
    """CPU time of one process."""
    memory_mib: Annotated[int, Field(ge=64)] = 512
    """Address space of one process."""
    processes: PositiveInt = 16
    """Processes and threads of a program at the same time."""
    file_mib: PositiveInt = 16
    """Largest file; where namespaces are allowed, all files of a program together."""
    open_files: Annotated[int, Field(ge=16)] = 64
    """Open files of one process."""
    output_kib: PositiveInt = 1024
    """Output, or one returned value, that is read before the program is killed."""
    require: tuple[Literal["network", "files", "processes"], ...] = ("network", "files", "processes")
    """Protections without which nothing is graded; what is left out here may be missing on the machine."""
    preload: list[str] = Field(default_factory=list)
    """Modules beyond the usual ones of Python that programs find imported already, such as numpy."""


class CodeTaskConfig(RewardedTaskConfig):
    """Programs that are run on tests, in a sandbox."""

    name: Literal["code"] = "code"
    """Which task: arithmetic, countdown, file or code."""
    train_file: Path
    """Problems to train on."""
    test_file: Path
    """Problems to measure on; a problem that occurs in both files is an error."""
    format: CodeFormatConfig = CodeFormatConfig(name="problems")
    """Form of both files: `problems` are rows with `prompt`, `answer` and `details` (docs/code_grader.md),
    the others are the published JSONL files, also with .gz, or your own (docs/doors.md)."""
    outcome: Literal["all", "share"] = "all"
    """1 if all tests passed and else 0, or the share of the tests that passed; asserts that were not reached
    since the program ended early count as failed."""
    steps: CodeStepsConfig = CodeStepsConfig(name="lines")
    """What a reasoning step is: `lines`, `blocks` (what ends in a blank line), another step rule such as
    `code_lines`, or your own (docs/doors.md)."""
    tolerance: NonNegativeFloat = 0.0
    """Largest relative or absolute difference of numbers with a fraction, returned or written."""
    sandbox: SandboxConfig = SandboxConfig()
    """How the programs are run."""
    test_problems: PositiveInt = 500
    """How many problems of the test file are used at most."""
