"""What several commands share: their arguments, and how a configuration and a result are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

_OF_RECORDS = ("algorithm", "budget", "leaves", "scorer")
"""Columns that tell records of a search from other files."""

ConfigArgument = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="A YAML file of configs/, or a run folder.", show_default=False),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[a.b=c]...", help="Settings that replace those of CONFIG, such as seed=1."),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Run the code that a run folder given as CONFIG names.")
]


def read_config(path: Path, overrides: list[str] | None, *, trust: bool | None = None) -> Config:
    """Return the configuration of a YAML file, or of a run folder, wherever it stands now.

    `trust`: of a run folder; see `load_run_config`. Commands that may do without the code that it names (a
    reward, a tracker) say `trust or None`, and refuse what they cannot do without where they would use it.

    Raises:
        ConfigError: see `load_config`; or a file of the user's own is to be trusted.
    """
    from airls_ray.config.load import load_config, load_run_config
    from airls_ray.errors import ConfigError

    if path.is_dir():
        return load_run_config(path, overrides or [], trust=trust)
    if trust:
        raise ConfigError(
            f"--trust is for the code that a run folder names, and {path} is a file of yours: leave it out"
        )
    return load_config(path, overrides or [])


def require_files(**given: Path | None) -> None:
    """Check that the files of options exist, before anything is loaded to read them.

    Raises:
        DataError: one does not; names the option.
    """
    from airls_ray.errors import DataError

    for name, path in given.items():
        if path is not None and not path.exists():
            raise DataError(f"--{name}: there is no file {path}")


def require_problems(config: Config, *, test: bool) -> None:
    """Check that the files of training problems, and of `test` problems, exist before anything is loaded.

    Raises:
        DataError: one does not.
    """
    from airls_ray.errors import DataError
    from airls_ray.planning.warnings import absent_files

    absent = list(absent_files(config, test=test))
    if absent:
        raise DataError(f"{absent[0]}: mend task.train_file{' or task.test_file' if test else ''}")


def read_records(paths: Sequence[Path], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of records of searches (records.parquet), with these columns or all.

    Raises:
        DataError: a file does not exist, cannot be read, or is of something else.
    """
    import pyarrow.parquet as pq

    from airls_ray.errors import DataError

    rows: list[dict[str, Any]] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no file {path}")
        try:
            lacking = sorted(set(_OF_RECORDS) - set(pq.read_schema(path).names))
            if lacking:
                raise DataError(f"{path} holds no records of a search: it has no column {lacking[0]!r}")
            rows += pq.read_table(path, columns=columns).to_pylist()
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path} cannot be read as records of a search: {reason}") from None
    return rows


def latest_policy(config: Config, prm: Path | None) -> tuple[Path, Path | None]:
    """Return policy and PRM of the run's latest checkpoint (or the PRM that is given).

    Raises:
        ModelError: there is no checkpoint.
    """
    from airls_ray.runs.run_folder import latest_models

    return latest_models(config.output / config.name, prm)


def show_sizes(config: Config) -> None:
    """Print the sizes that follow from the settings."""
    from airls_ray.console.choose import make_progress

    rows = [(name, value) for name, value in config.derived().items()]
    make_progress().table(
        f"{config.name}: {config.method.name} on {config.task.name}", rows, ("size", "value")
    )


def show_result(title: str, result: Mapping[str, Any]) -> None:
    """Print the numbers of a nested result, one a line."""
    from airls_ray.console.choose import make_progress

    make_progress().table(title, list(_flatten(result)), ("result", "value"))


def _flatten(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | None]]:
    """Yield `a.b.c` and its value; lists are left to summary.json."""
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, str | int | float):
            yield prefix + str(name), value
