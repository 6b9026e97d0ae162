"""The work behind `airls-ray data`."""

from __future__ import annotations

from pathlib import Path

from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream, write_problems
from airls_ray.errors import ConfigError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Split


def make_data(config: Config, output: Path, problems: int, split: Split) -> int:
    """Write `problems` problems of `config.task` with their traces as JSONL or Parquet, by suffix.

    Returns:
        How many were written: fewer than asked where the test set is smaller.

    Raises:
        ConfigError: `problems` is not positive.
        DataError: the suffix is unknown, or a file of the task is malformed.
        RunError: the file cannot be written.
    """
    if problems < 1:
        raise ConfigError(f"the number of problems must be at least 1, but is {problems}")
    stream = ProblemStream(make_task(config.task), split, derive_seed(config.seed, "data", split))
    table = stream.take(problems)
    write_problems(table, output)
    return int(table.num_rows)
