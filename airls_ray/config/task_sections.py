"""Settings of the tasks; `name` decides which fields there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from airls_ray.config.base import StrictModel


class ArithmeticTaskConfig(StrictModel):
    """Chains of modular arithmetic, evaluated from left to right; step truth is exact."""

    name: Literal["arithmetic"] = "arithmetic"
    """Which task: arithmetic, countdown or file."""
    operations: Annotated[int, Field(ge=1, le=64)] = 6
    """Number of operations of a chain, one reasoning step each."""
    modulus: Annotated[int, Field(ge=2, le=1000)] = 10
    """All numbers lie in [0, modulus)."""
    train_file: Path | None = None
    """Train on the problems of this file (as `airls-ray data unsolved` and `data make` write)."""
    test_problems: PositiveInt = 500
    """Size of the test set; its problems never occur in training."""


class CountdownTaskConfig(StrictModel):
    """Reach a target from given numbers with + - * /; step truth by exhaustive search."""

    name: Literal["countdown"] = "countdown"
    """Which task: arithmetic, countdown or file."""
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


class FileTaskConfig(StrictModel):
    """Problems of the user's own: JSONL or Parquet with `prompt`, `answer` and `traces`."""

    name: Literal["file"] = "file"
    """Which task: arithmetic, countdown or file."""
    train_file: Path
    """Problems to train on; rows without a trace serve rollouts but never the reference side."""
    test_file: Path
    """Problems to measure on; a problem that occurs in both files is an error."""
    step_delimiter: str = "\n\n"
    """Text that ends a reasoning step."""
    grader: Literal["exact", "math"] = "math"
    """`exact`: the text after `answer_marker`, stripped, equals the answer. `math`: math-verify."""
    answer_marker: str = "####"
    """For `exact`: where the final answer begins; without it the last line counts."""
    test_problems: PositiveInt = 500
    """How many problems of the test file are used at most."""


TaskConfig = Annotated[
    ArithmeticTaskConfig | CountdownTaskConfig | FileTaskConfig, Field(discriminator="name")
]
