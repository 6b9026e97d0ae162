"""`data`: make, check and convert files of problems and traces."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, read_config

if TYPE_CHECKING:
    from airls_ray.config.fields_section import FieldsConfig
    from airls_ray.data.importing import Imported

app = typer.Typer(help="Make, check and convert files of problems and traces.", no_args_is_help=True)


class SplitName(StrEnum):
    """Which problems: those of training or those of measurement."""

    TRAIN = "train"
    TEST = "test"


_OWN_FORMATS = (".jsonl", ".json", ".parquet")
_CONFIG_FILES = (".yaml", ".yml")

_SOURCE = "A .jsonl, .json, .csv, .parquet or .arrow file, or hub:OWNER/NAME[:CONFIG]:SPLIT@REVISION."

SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE, show_default=False)]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="Published data set whose fields these are, such as gsm8k, or file.py:NAME."
    ),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option("--field", help="Where a field of ours is: prompt=question; may be given several times."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file to write if it exists.")]
ShowOption = Annotated[int, typer.Option(min=0, help="How many rows that need a look are printed.")]


@app.command("make")
def make(
    config: ConfigArgument,
    output: Annotated[Path, typer.Option(help="File to write: .jsonl or .parquet.", show_default=False)],
    overrides: OverridesArgument = None,
    split: Annotated[SplitName, typer.Option(help="Training or test problems.")] = SplitName.TRAIN,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 1000,
    overwrite: OverwriteOption = False,
    trust: TrustOption = False,
) -> None:
    """Write problems of the task of CONFIG with their traces."""
    settings = read_config(config, overrides, trust=trust or None)
    from airls_ray.data.commands import make_data
    from airls_ray.files import check_target

    check_target(output, overwrite)
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
    overwrite: OverwriteOption = False,
    trust: TrustOption = False,
) -> None:
    """Write the training problems that a policy never solves in N samples (then set task.train_file)."""
    settings = read_config(config, overrides, trust=trust or None)
    from airls_ray.files import check_target

    check_target(output, overwrite)
    from actors.commands.unsolved import write_unsolved
    from actors.train.launch_checks import base_policy

    found = write_unsolved(settings, policy or base_policy(settings), output, problems, samples)
    typer.echo(
        f"{output}: {found['unsolved']} of {found['problems']} problems unsolved in {samples} samples "
        f"(mean outcome {found['mean_outcome']:.3f})"
    )


@app.command("check")
def check(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file or a run folder; or a file of problems in our own fields.",
            show_default=False,
        ),
    ],
    overrides: OverridesArgument = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Grade only so many problems of each file, drawn by the seed.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many cases of each finding are printed.")] = 20,
    trust: TrustOption = False,
) -> None:
    """Check problems and traces as CONFIG will see them: rows, fields, grader, steps, lengths, duplicates.

    Of a file of problems: say what is in it, or which row and field is wrong. Exit codes with CONFIG: 0
    nothing is wrong, 1 warnings, 2 errors (training would be wrong or would not start).
    """
    if target.suffix not in _CONFIG_FILES and not (target / "config.yaml").is_file():
        from airls_ray.data.importing import import_problems
        from airls_ray.errors import ConfigError

        if overrides:
            raise ConfigError(f"{' '.join(overrides)}: settings belong to a YAML file, and {target} is none")
        if trust:
            raise ConfigError(f"--trust is for the code that a run folder names, and {target} is none")
        found = import_problems(target, None, bad_rows="error", remedy="")
        typer.echo(f"{target}: {_describe(found)}")
        return
    settings = read_config(target, overrides, trust=trust or None)
    from airls_ray.console.choose import make_progress
    from airls_ray.data.check_config import check_config

    report = check_config(settings, sample, make_progress())
    for line in report.show(make_progress(), f"{settings.name}: {settings.task.name}", show):
        typer.echo(line)
    raise typer.Exit(report.severity)


@app.command("convert")
def convert(
    source: SourceArgument,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.", show_default=False)],
    form: FormatOption = None,
    fields: FieldOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that is bad.")] = False,
    check_answers: Annotated[
        bool, typer.Option(help="With --format or --field: grade every answer against itself, and traces.")
    ] = True,
    drop_wrong_traces: Annotated[
        bool, typer.Option("--drop-wrong-traces", help="Leave out traces that do not grade right.")
    ] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="Model folder whose tokens --max-tokens counts.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Leave out longer prompts, and traces that with them are.")
    ] = None,
    overwrite: OverwriteOption = False,
    show: ShowOption = 5,
) -> None:
    """Convert between JSONL and Parquet, or from other data (--format, --field); every row is checked."""
    _check_converted(source, target, overwrite)
    chosen = _fields(fields)
    limited = tokenizer is not None or max_tokens is not None
    as_it_is = form is None and chosen is None and not limited and not drop_wrong_traces
    if as_it_is and Path(source).suffix in _OWN_FORMATS:
        from airls_ray.data.importing import import_problems
        from airls_ray.data.problems import problems_to_table, write_problems

        found = import_problems(source, None, bad_rows="error" if strict else "skip", remedy="")
        write_problems(problems_to_table(found.problems), target)
        typer.echo(f"{target}: {_describe(found)}")
        _show_notes(found.bad, show)
        return
    from airls_ray.config.fields_section import FieldsConfig
    from airls_ray.data.commands import convert_data

    converted = convert_data(
        source,
        target,
        form,
        chosen or FieldsConfig(),
        bad_rows="error" if strict else "skip",
        check_answers=check_answers,
        drop_wrong_traces=drop_wrong_traces,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
    )
    _show_counts(f"{source} to {target}", converted.counts)
    _show_notes(converted.notes, show)


@app.command("contamination")
def contamination(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help=_SOURCE, show_default=False)],
    test: Annotated[str, typer.Argument(metavar="TEST", help="Like the first.", show_default=False)],
    form: FormatOption = None,
    test_form: Annotated[
        str | None, typer.Option("--test-format", help="Format of TEST, where it is another one.")
    ] = None,
    fields: FieldOption = None,
    ngram: Annotated[int, typer.Option(min=1, help="Words in a row that both must have.")] = 13,
    output: Annotated[Path | None, typer.Option(help="JSON file with all matching rows.")] = None,
    show: ShowOption = 5,
) -> None:
    """Say which problems of TEST are in TRAIN: equal texts, and n-grams of words in common."""
    from airls_ray.config.fields_section import FieldsConfig
    from airls_ray.data.commands import compare_data

    found = compare_data(train, test, (form, test_form or form), _fields(fields) or FieldsConfig(), ngram)
    counts = {
        "training problems": found.train,
        "test problems": found.test,
        "equal texts": found.equal,
        f"others with a {ngram}-gram in common": found.overlapping,
        "of those, half of their n-grams or more": found.half,
        f"test texts below {ngram} words": found.too_short,
    }
    _show_counts(f"{test} in {train}", counts)
    for match in sorted(found.matches, key=lambda one: -one.share)[:show]:
        what = "equal" if match.equal else f"{match.share:.0%} of its n-grams"
        typer.echo(f"{match.test} and {match.train}: {what} ({match.example[:80]!r})")
    if output is not None:
        from airls_ray.files import to_json, write_text

        write_text(output, to_json(found.to_json()) + "\n")
        typer.echo(f"{output}: {len(found.matches)} matches")


def _check_converted(source: str, target: Path, overwrite: bool) -> None:
    """Refuse a target that is there, and one that would take the place of its own source in any case."""
    from airls_ray.errors import DataError
    from airls_ray.files import check_target

    if target.exists() and Path(source).exists() and target.samefile(source):
        raise DataError(f"{target} is the file that is read: give another name to what is written")
    check_target(target, overwrite)


def _fields(given: list[str] | None) -> FieldsConfig | None:
    """Return the places of our fields that `--field name=path` gives."""
    if not given:
        return None
    from airls_ray.config.fields_section import FieldsConfig
    from airls_ray.errors import ConfigError

    places: dict[str, str | list[str]] = {}
    for one in given:
        name, separator, path = one.partition("=")
        if not separator or name not in FieldsConfig.model_fields or not path:
            known = ", ".join(FieldsConfig.model_fields)
            raise ConfigError(f"--field {one} must be NAME=PLACE with a NAME of {known}")
        places[name] = path.split(";") if name == "choices" and ";" in path else path
    return FieldsConfig.model_validate(places)


def _show_counts(title: str, counts: dict[str, int]) -> None:
    from airls_ray.console.choose import make_progress

    make_progress().table(title, [(name, count) for name, count in counts.items()], ("what", "count"))


def _show_notes(notes: list[str], show: int) -> None:
    for note in notes[:show]:
        typer.echo(note)
    if len(notes) > show:
        typer.echo(f"... and {len(notes) - show} more (--show)")


def _describe(found: Imported) -> str:
    without = sum(not problem.traces for problem in found.problems)
    text = f"{len(found.problems)} problems, {found.traces} traces, {without} problems without one"
    text += f", {len(found.twice)} rows with the problem of an earlier one" if found.twice else ""
    return f"{text}, {len(found.bad)} bad rows left out" if found.bad else text
