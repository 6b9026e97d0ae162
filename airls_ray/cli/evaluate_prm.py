"""`evaluate-prm`: how well step scores tell right steps from wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airls_ray.cli.score import (
    CriticModel,
    Endpoint,
    PromptTemplate,
    Votes,
    WeightType,
    load_critic,
    load_scorer,
    refuse_critic_options,
)

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress
    from airls_ray.data.step_files import StepRow
    from airls_ray.prm.items import StepScorer, StepText

_CHUNK = 256


class DataFormat(StrEnum):
    """Forms of files of labelled steps."""

    PROCESSBENCH = "processbench"
    PRM800K = "prm800k"
    PRMBENCH = "prmbench"
    LABELS = "labels"
    STEPWISE = "stepwise"
    MATH_SHEPHERD = "math_shepherd"
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
        str | None,
        typer.Option(
            help="PRM folder or hub name, with --endpoint the name of a critic; by default the scores in "
            "DATA are measured."
        ),
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
        PromptTemplate, typer.Option(help="token_classification: chat if it was trained so.")
    ] = PromptTemplate.PLAIN,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a forward pass.")] = 16384,
    partial_tokens: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Also score every longer step cut after so many of the PRM's tokens: do these scores rank "
            "as those of the whole steps? (may be repeated)",
            show_default=False,
        ),
    ] = None,
    skip_long: Annotated[
        bool, typer.Option("--skip-long", help="Leave out solutions that are longer than the PRM takes.")
    ] = False,
    endpoint: Endpoint = None,
    model: CriticModel = None,
    votes: Votes = None,
    probes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also score responses without content (`:`, `Thought process:`) to so many of the problems: "
            "how often are they called right?",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Measure a PRM on labelled steps: first wrong step, PRM-Score, AUROC, calibration, biases."""
    _refuse_options(prm, partial_tokens, endpoint, probes)
    refuse_critic_options(endpoint, model, votes, form)
    if prm is not None and endpoint is None:
        from airls_ray.prm.forms import check_prm

        check_prm(prm, form, separator, prompt_template.value)
    from airls_ray.console.choose import make_progress
    from airls_ray.data.step_files import read_step_files
    from airls_ray.evaluation.prm_metrics.scoring import score_probes

    progress = make_progress()
    rows = read_step_files(data, None if data_format is None else data_format.value)
    _say_ignored(rows, progress)
    partial: dict[int, list[list[float]]] = {}
    probed: dict[str, list[float]] = {}
    if prm is None:
        rows, scores = _given_scores(rows)
    else:
        rows = _without_blank_steps(rows, progress)
        scorer: StepScorer
        if endpoint is not None:
            scorer = critic = load_critic(prm, endpoint, model, votes, progress)
        else:
            scorer = load_scorer(prm, form, dtype, separator, prompt_template, batch_tokens, progress)
        rows = _that_fit(rows, scorer, progress) if skip_long else rows
        scores = score_rows(rows, scorer, prm, progress)
        partial = score_beginnings(rows, scorer, sorted(set(partial_tokens or ())), prm, progress)
        probed = score_probes(rows, scorer, probes, prm, progress)
        if endpoint is not None:
            progress.say(critic.told())
    from airls_ray.evaluation.prm_metrics.measure import measure_step_rows
    from airls_ray.evaluation.prm_metrics.probes import false_positives
    from airls_ray.evaluation.prm_metrics.report import step_tables, write_step_results

    summary: dict[str, Any] = {"data": data, "prm": prm, "threshold": threshold, "seed": seed}
    summary |= measure_step_rows(rows, scores, threshold, seed, partial)
    if probed:
        summary["probes"] = false_positives(probed, threshold)
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
    from airls_ray.evaluation.prm_metrics.scoring import score_items
    from airls_ray.prm.items import StepText

    scores: list[list[float]] = []
    with progress.track("score", len(rows)) as bar:
        for start in range(0, len(rows), _CHUNK):
            batch = rows[start : start + _CHUNK]
            items = [
                StepText(row.problem, row.steps, finished=row.finished, where=row.where) for row in batch
            ]
            scores += score_items(items, scorer, name)
            bar.advance(len(batch))
    return scores


def score_beginnings(
    rows: Sequence[StepRow], scorer: StepScorer, tokens: Sequence[int], name: str, progress: Progress
) -> dict[int, list[list[float]]]:
    """Score every step of every row cut after some of its tokens, behind the whole steps before it.

    Returns:
        By number of tokens for each row one score a step; nan where `StepScorer.cut_last_step` gives none.

    Raises:
        ModelError: as `score_rows`.
        DataError: the PRM's tokenizer does not say where its tokens end.
    """
    from airls_ray.evaluation.prm_metrics.scoring import score_items
    from airls_ray.prm.items import StepText

    scores = {count: [[nan] * len(row.steps) for row in rows] for count in tokens}
    places = [
        (at, step, count) for at, row in enumerate(rows) for step in range(len(row.steps)) for count in tokens
    ]
    if not places:
        return scores
    with progress.track("score beginnings", len(places)) as bar:
        for start in range(0, len(places), _CHUNK):  # of items, not of rows: each reads its prefix again
            batch = places[start : start + _CHUNK]
            cut: dict[tuple[int, int, int], StepText] = {}
            for at, step, count in batch:
                whole = StepText(rows[at].problem, rows[at].steps[: step + 1], where=rows[at].where)
                begun = scorer.cut_last_step(whole, count)
                if begun is not None:
                    cut[at, step, count] = begun
            found = score_items(list(cut.values()), scorer, name) if cut else []
            for (at, step, count), values in zip(cut, found, strict=True):
                scores[count][at][step] = values[-1]
            bar.advance(len(batch))
    return scores


def _refuse_options(
    prm: str | None, partial_tokens: Sequence[int] | None, endpoint: str | None, probes: int
) -> None:
    from airls_ray.errors import ConfigError

    if partial_tokens and prm is None:
        raise ConfigError("--partial-tokens needs --prm: scores in a file are those of whole steps")
    if partial_tokens and endpoint is not None:
        raise ConfigError("--partial-tokens counts the tokens of a PRM here: leave it out with --endpoint")
    if prm is None and (endpoint is not None or probes):
        raise ConfigError("--endpoint and --probes need --prm: a folder, or with --endpoint a critic's name")


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


def _that_fit(rows: list[StepRow], scorer: StepScorer, progress: Progress) -> list[StepRow]:
    """Leave out solutions that the PRM's context cannot hold."""
    from airls_ray.errors import DataError
    from airls_ray.prm.items import StepText

    kept = [row for row in rows if scorer.fits(StepText(row.problem, row.steps, where=row.where))]
    if len(kept) < len(rows):
        progress.say(
            f"{len(rows) - len(kept)} of {len(rows)} solutions are too long for the PRM and left out"
        )
    if not kept:
        raise DataError("every solution is too long for the PRM, so there is nothing to score")
    return kept


def _say_ignored(rows: list[StepRow], progress: Progress) -> None:
    count = sum(row.ignored > 0 for row in rows)
    if count:
        progress.say(
            f"{count} solutions have labels of wrong steps behind their last step, which are ignored, as by "
            "PRMBench's own code"
        )
