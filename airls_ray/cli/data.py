"""`data`: make, check and convert files of problems and traces."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, read_config

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(help="Make, check and convert files of problems and traces.", no_args_is_help=True)


class SplitName(StrEnum):
    """Which problems: those of training or those of measurement."""

    TRAIN = "train"
    TEST = "test"


FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file.", show_default=False)
]


@app.command("make")
def make(
    config: ConfigArgument,
    output: Annotated[Path, typer.Option(help="File to write: .jsonl or .parquet.", show_default=False)],
    overrides: OverridesArgument = None,
    split: Annotated[SplitName, typer.Option(help="Training or test problems.")] = SplitName.TRAIN,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 1000,
) -> None:
    """Write problems of the task of CONFIG with their traces."""
    settings = read_config(config, overrides)
    from airls_ray.data.commands import make_data

    written = make_data(settings, output, problems, split.value)
    typer.echo(f"{output}: {written} {split.value} problems of {settings.task.name}")


@app.command("unsolved")
def unsolved(
    config: ConfigArgument,
    output: Annotated[Path, typer.Option(help="File to write: .jsonl or .parquet.", show_default=False)],
    overrides: OverridesArgument = None,
    problems: Annotated[int, typer.Option(min=1, help="How many training problems are tried.")] = 1000,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each.")] = 16,
    policy: Annotated[
        str | None, typer.Option(help="Policy folder or hub name; by default that of CONFIG.")
    ] = None,
) -> None:
    """Write the training problems that a policy never solves in N samples (then set task.train_file)."""
    settings = read_config(config, overrides)
    from actors.launch_checks import base_policy
    from actors.unsolved import write_unsolved

    found = write_unsolved(settings, policy or base_policy(settings), output, problems, samples)
    typer.echo(
        f"{output}: {found['unsolved']} of {found['problems']} problems unsolved in {samples} samples "
        f"(mean outcome {found['mean_outcome']:.3f})"
    )


@app.command("check")
def check(file: FileArgument) -> None:
    """Read a file of your own and say what is in it, or which row and field is wrong."""
    from airls_ray.data.problems import read_problems

    typer.echo(f"{file}: {_describe(read_problems(file))}")


@app.command("convert")
def convert(
    source: FileArgument,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.", show_default=False)],
) -> None:
    """Convert between JSONL and Parquet, with the same check of every row."""
    from airls_ray.data.problems import read_problems, write_problems

    table = read_problems(source)
    write_problems(table, target)
    typer.echo(f"{target}: {_describe(table)}")


def _describe(table: pa.Table) -> str:
    import pyarrow.compute as pc

    counts = pc.list_value_length(table["traces"])
    without = pc.sum(pc.equal(counts, 0)).as_py() or 0
    return f"{table.num_rows} problems, {pc.sum(counts).as_py() or 0} traces, {without} problems without one"
