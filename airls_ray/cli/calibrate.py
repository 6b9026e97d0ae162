"""`calibrate`: from the records of a search to what a PRM's scores are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from airls_ray.cli.common import read_records


def calibrate(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORDS...",
            help="records.parquet of `airls-ray search` by best_of_n (others are left out), on problems for "
            "validation.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(help="File to write, or a folder (the PRM's), which gets calibration.json."),
    ],
    method: Annotated[
        Literal["isotonic", "quantile"],
        typer.Option(help="Mean success of problems that score alike, or a quantile of it."),
    ] = "quantile",
    level: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the quantile: below 1/2 is cautious.")
    ] = 0.1,
    pilot: Annotated[
        int, typer.Option(min=1, help="Responses whose mean score is the score of a problem.")
    ] = 4,
) -> None:
    """Learn how often problems of a given score are solved, for the search `instance_adaptive`."""
    from airls_ray.errors import ConfigError
    from airls_ray.evaluation.calibrators import FILE, fit_records, samples_of, write_calibrator

    if method == "quantile" and not 0.0 < level < 1.0:
        raise ConfigError(f"--level must lie between 0 and 1, but is {level:g}")
    rows = read_records(records, ["algorithm", "scorer", "budget", "leaves"])
    found = fit_records(samples_of(rows), method, level, pilot)
    target = output / FILE if output.is_dir() else output
    write_calibrator(found, target)
    typer.echo(
        f"{target}: {found.problems} problems; scores from {found.scores[0]:.3f} to {found.scores[-1]:.3f} "
        f"mean a success of {found.successes[0]:.3f} to {found.successes[-1]:.3f}"
    )
