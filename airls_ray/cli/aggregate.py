"""`aggregate`: accuracy of stored samples for every aggregation of their scores, without any engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def aggregate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Samples with problem_id, answer, correct and scores: .jsonl, .json or .parquet.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default runs/aggregate/NAME OF DATA.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random subsets and bootstrap intervals.")] = 0,
) -> None:
    """Compare ways of choosing among stored samples: last, min, prod or mean; best, or a vote.

    Votes: majority, weighted by score, hybrid and reward_frequency (docs/search.md, answer rules).

    Also of a run (`RUN/samples/trained.parquet`) and of a search (`records.parquet`), each search by itself.
    """
    from airls_ray.console.choose import make_progress
    from airls_ray.data.sample_files import read_sample_files
    from airls_ray.evaluation.prm_metrics.report import (
        abstention_table,
        sample_table,
        write_sample_results,
    )
    from airls_ray.evaluation.prm_metrics.stored_samples import measure_samples

    progress = make_progress()
    searches = read_sample_files(data)
    target = output or Path("runs") / "aggregate" / data[0].stem
    for name, problems in searches.items():
        if len(searches) > 1:
            progress.say(f"{name or 'samples'}:")
        summary = {"data": data, "seed": seed, **measure_samples(problems, seed, progress)}
        folder = target if len(searches) == 1 else target / re.sub(r"\W+", "_", name or "samples")
        write_sample_results(folder, summary)
        for table in (
            sample_table(summary["curves"], summary["problems"]),
            abstention_table(summary["abstention"]),
        ):
            progress.table(table.title, table.rows, table.columns)
        typer.echo(f"Summary and curves: {folder}")
