"""`score`: a PRM, of this project or not, over a file of solutions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress
    from airls_ray.critics.by_name import CriticScorer
    from airls_ray.prm.items import StepScorer


class WeightType(StrEnum):
    """Data type of the PRM's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class PromptTemplate(StrEnum):
    """How the PRM's training wrapped the problem."""

    PLAIN = "plain"
    CHAT = "chat"


Endpoint = Annotated[
    str | None,
    typer.Option(
        help="Address of the model of a critic (http://HOST:PORT/v1), whose name then stands in the place of "
        "the PRM's folder: airls-ray list scorer.",
        show_default=False,
    ),
]
CriticModel = Annotated[
    str | None, typer.Option(help="Name at the endpoint; by default the one that it serves.")
]
Votes = Annotated[
    int | None, typer.Option(min=1, help="Replies of a critic to each question; by default as its authors.")
]


def score(
    prm: Annotated[
        str,
        typer.Argument(
            metavar="PRM",
            help="Model folder or hub name of the PRM; with --endpoint the name of a critic.",
            show_default=False,
        ),
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
    endpoint: Endpoint = None,
    model: CriticModel = None,
    votes: Votes = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
) -> None:
    """Score every step of the solutions in INPUT with a PRM: one number in [0, 1] each."""
    from airls_ray.files import check_target
    from airls_ray.prm.forms import check_prm, choose_form
    from airls_ray.prm.score_file import read_solutions, write_scores

    check_target(target, overwrite)  # all before anything heavy is imported
    rows = read_solutions(source)
    refuse_critic_options(endpoint, model, votes, form)
    if endpoint is None:
        check_prm(prm, form, separator, prompt_template.value)
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    if endpoint is not None:
        critic = load_critic(prm, endpoint, model, votes, progress)
        steps = write_scores(critic, rows, target, progress)
        typer.echo(f"{target}: {steps} steps of {len(rows)} solutions scored by {prm} ({critic.told()})")
        return
    chosen = choose_form(prm, form)
    scorer = load_scorer(prm, chosen, dtype, separator, prompt_template, batch_tokens, progress)
    steps = write_scores(scorer, rows, target, progress)
    typer.echo(f"{target}: {steps} steps of {len(rows)} solutions scored by {prm} ({chosen})")


def refuse_critic_options(endpoint: str | None, model: str | None, votes: int | None, form: str) -> None:
    """Raise a ConfigError for options of a critic without its address, or of a PRM's folder with it."""
    from airls_ray.errors import ConfigError

    if endpoint is None and (model is not None or votes is not None):
        raise ConfigError("--model and --votes are those of a critic: give its address by --endpoint")
    if endpoint is not None and form != "auto":
        raise ConfigError("--form is of a PRM's folder, and --endpoint of a critic: leave one of them out")


def load_critic(
    name: str, endpoint: str, model: str | None, votes: int | None, progress: Progress
) -> CriticScorer:
    """Open and try a critic, with a line for its seconds."""
    from airls_ray.critics.by_name import CriticScorer

    with progress.phase(f"try {name} at {endpoint}"):
        return CriticScorer(name, endpoint, model, votes)


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
