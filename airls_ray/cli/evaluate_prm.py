"""`evaluate-prm`: how well step scores tell right steps from wrong ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.score import PromptTemplate, WeightType, load_scorer

if TYPE_CHECKING:
    from airls_ray.data.step_files import StepRow
    from airls_ray.prms.items import StepScorer
    from airls_ray.progress import Progress

_CHUNK = 256


class DataFormat(StrEnum):
    """Forms of files of labelled steps."""

    PROCESSBENCH = "processbench"
    PRMBENCH = "prmbench"
    LABELS = "labels"
    RECORDS = "records"
    PRM_LABELS = "prm_labels"


def evaluate_prm(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...", help="Labelled steps: .jsonl, .json or .parquet.", show_default=False
        ),
    ],
    prm: Annotated[
        str | None, typer.Option(help="PRM folder or hub name; by default the scores in DATA are measured.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default runs/evaluate_prm/NAME OF DATA.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A step that scores below it is called wrong.")
    ] = 0.5,
    data_format: Annotated[
        DataFormat | None, typer.Option(help="Form of DATA; by default told from its fields.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            help="Of the PRM: token_classification, marker, plus_minus, plus_minus_chat, project or auto."
        ),
    ] = "auto",
    dtype: Annotated[WeightType, typer.Option(help="Of the PRM's weights.")] = WeightType.FLOAT32,
    separator: Annotated[
        str | None,
        typer.Option(help=r"token_classification: what ends a step in its training, by default \n."),
    ] = None,
    prompt_template: Annotated[
        PromptTemplate, typer.Option(help="token_classification and project: chat if it was trained so.")
    ] = PromptTemplate.PLAIN,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a forward pass.")] = 16384,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Measure a PRM on labelled steps: first wrong step, PRM-Score, AUROC, calibration, biases."""
    from airls_ray.data.step_files import read_step_files
    from airls_ray.progress import make_progress

    progress = make_progress()
    rows = read_step_files(data, None if data_format is None else data_format.value)
    _say_ignored(rows, progress)
    if prm is None:
        rows, scores = _given_scores(rows)
    else:
        rows = _without_blank_steps(rows, progress)
        scorer = load_scorer(prm, form, dtype, separator, prompt_template, batch_tokens, progress)
        scores = score_rows(rows, scorer, prm, progress)
    from airls_ray.evaluation.prm_metrics.measure import measure_step_rows
    from airls_ray.evaluation.prm_metrics.report import step_tables, write_step_results

    summary = {"data": data, "prm": prm, "threshold": threshold, "seed": seed}
    summary |= measure_step_rows(rows, scores, threshold, seed)
    target = output or Path("runs") / "evaluate_prm" / data[0].stem
    write_step_results(target, rows, scores, summary)
    for table in step_tables(summary):
        progress.table(table.title, table.rows, table.columns)
    typer.echo(f"Summary, scored rows and picture: {target}")


def score_rows(rows: list[StepRow], scorer: StepScorer, name: str, progress: Progress) -> list[list[float]]:
    """Score every step of every row.

    Raises:
        ModelError: the scorer gives a wrong number of scores, or one outside [0, 1].
        DataError: a row does not fit the model.
    """
    from airls_ray.errors import ModelError
    from airls_ray.prms.items import StepText

    scores: list[list[float]] = []
    with progress.track("score", len(rows)) as bar:
        for start in range(0, len(rows), _CHUNK):
            batch = rows[start : start + _CHUNK]
            found = scorer.score([StepText(row.problem, row.steps, where=row.where) for row in batch])
            for row, values in zip(batch, found, strict=True):
                if len(values) != len(row.steps) or not all(0 <= value <= 1 for value in values):
                    raise ModelError(
                        f"{name} must give one score in [0, 1] for each of the {len(row.steps)} steps of "
                        f"{row.where}, but gives {[round(value, 4) for value in values][:8]}"
                    )
                scores.append([float(value) for value in values])
            bar.advance(len(batch))
    return scores


def _given_scores(rows: list[StepRow]) -> tuple[list[StepRow], list[list[float]]]:
    """Return the rows that bring scores, and these; of PRMBench's originals, those that do."""
    from airls_ray.data.step_files import CORRECT
    from airls_ray.errors import DataError

    kept = [row for row in rows if row.scores is not None]
    for row in rows:
        if row.scores is None and (row.classification != CORRECT or not kept):
            raise DataError(f"{row.where}: has no 'scores': give --prm, or one score a step in every row")
    return kept, [list(row.scores or ()) for row in kept]


def _without_blank_steps(rows: list[StepRow], progress: Progress) -> list[StepRow]:
    """Leave out what no PRM can score; published files have a few such rows."""
    from airls_ray.errors import DataError

    kept = [row for row in rows if all(step.strip() for step in row.steps)]
    if len(kept) < len(rows):
        progress.say(f"{len(rows) - len(kept)} of {len(rows)} solutions have a blank step and are left out")
    if not kept:
        raise DataError("every solution has a blank step, so there is nothing to score")
    return kept


def _say_ignored(rows: list[StepRow], progress: Progress) -> None:
    count = sum(row.ignored > 0 for row in rows)
    if count:
        progress.say(
            f"{count} solutions have labels of wrong steps behind their last step, which are ignored, as by "
            "PRMBench's own code"
        )
