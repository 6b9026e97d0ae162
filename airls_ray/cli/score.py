"""`score`: a PRM, of this project or not, over a file of solutions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress
    from airls_ray.prm.items import StepScorer


class WeightType(StrEnum):
    """Data type of the PRM's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class PromptTemplate(StrEnum):
    """How the PRM's training wrapped the problem."""

    PLAIN = "plain"
    CHAT = "chat"


def score(
    prm: Annotated[
        str, typer.Argument(metavar="PRM", help="Model folder or hub name of the PRM.", show_default=False)
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help='JSONL of {"problem": ..., "steps": [...]}.', show_default=False
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="JSONL to write: the same and scores.", show_default=False),
    ],
    form: Annotated[
        str,
        typer.Option(
            help="token_classification, marker, plus_minus, plus_minus_chat, project; auto reads the folder."
        ),
    ] = "auto",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a forward pass.")] = 16384,
    dtype: Annotated[
        WeightType, typer.Option(help="Of the weights; bfloat16 for large models.")
    ] = WeightType.FLOAT32,
    separator: Annotated[
        str | None,
        typer.Option(help=r"token_classification: what ends a step in its training, by default \n."),
    ] = None,
    prompt_template: Annotated[
        PromptTemplate, typer.Option(help="token_classification: chat if it was trained so.")
    ] = PromptTemplate.PLAIN,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
) -> None:
    """Score every step of the solutions in INPUT with a PRM: one number in [0, 1] each."""
    from airls_ray.prm.forms import check_prm, choose_form
    from airls_ray.prm.score_file import check_target, read_solutions, write_scores

    check_target(target, overwrite)  # all before anything heavy is imported
    rows = read_solutions(source)
    check_prm(prm, form, separator, prompt_template.value)
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    chosen = choose_form(prm, form)
    scorer = load_scorer(prm, chosen, dtype, separator, prompt_template, batch_tokens, progress)
    steps = write_scores(scorer, rows, target, progress)
    typer.echo(f"{target}: {steps} steps of {len(rows)} solutions scored by {prm} ({chosen})")


def load_scorer(
    prm: str,
    form: str,
    dtype: WeightType,
    separator: str | None,
    prompt_template: PromptTemplate,
    batch_tokens: int,
    progress: Progress,
) -> StepScorer:
    """Load a PRM by the options that `score` and `evaluate-prm` share, with a line for its seconds."""
    from airls_ray.prm.load import load_step_scorer

    with progress.phase(f"load {prm} as {form}"):
        return load_step_scorer(
            prm,
            form,
            dtype.value,
            separator=None if separator is None else separator.replace(r"\n", "\n"),
            prompt_template=prompt_template.value,
            batch_tokens=batch_tokens,
        )
