"""`search` and `report`: the commands that look at what a run has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, latest_policy, read_config

if TYPE_CHECKING:
    from airls_ray.config.schema import Config


def search(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy folder; by default that of the run's latest checkpoint.")
    ] = None,
    prm: Annotated[
        Path | None, typer.Option(help="PRM folder; by default the latest one, or none beside --policy.")
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help="Algorithm (may be repeated), or all that lack nothing; by default search.algorithms."
        ),
    ] = None,
    budget: Annotated[
        list[int] | None, typer.Option(help="Width N (may be repeated); by default search.budgets.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default search/ in the run folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the records that are there.")] = False,
    trust: TrustOption = False,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Address of an OpenAI-compatible endpoint as the policy; starts no engine."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name at the endpoint; by default the one that it serves.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer of the endpoint's policy, so that prefixes go as token ids; else as text."
        ),
    ] = None,
) -> None:
    """Search the test problems, guided by a PRM (or another scorer): Best-of-N, beam, MCTS and more."""
    if endpoint is None:
        _refuse_without_endpoint(model, tokenizer)
    else:
        _refuse_with_endpoint(policy, resume=resume)
    settings = read_config(config, [*(overrides or []), *_search_overrides(algorithm, budget)], trust=trust)
    target = output or settings.output / settings.name / "search"
    if endpoint is not None:
        _search_endpoint(settings, endpoint, model, tokenizer, prm, target)
        return
    if policy is None:
        policy, prm = latest_policy(settings, prm)
    from airls_ray.prm.forms import check_search_models

    check_search_models(settings, policy, prm)
    from actors.search.search import run_search

    run_search(settings, policy, prm, target, resume)
    typer.echo(f"Records, summary and curves: {target}")


def _refuse_without_endpoint(model: str | None, tokenizer: str | None) -> None:
    from airls_ray.errors import ConfigError

    if model is not None or tokenizer is not None:
        raise ConfigError("--model and --tokenizer are those of an endpoint's policy: give it by --endpoint")


def _refuse_with_endpoint(policy: Path | None, *, resume: bool) -> None:
    from airls_ray.errors import ConfigError

    if policy is not None:
        raise ConfigError("--policy and --endpoint exclude each other: give one of them")
    if resume:
        raise ConfigError(
            "a search over an endpoint keeps no records to go on with: leave --resume out, and give another "
            "--output"
        )


def _search_endpoint(
    settings: Config,
    url: str,
    model: str | None,
    tokenizer: str | None,
    prm: Path | None,
    output: Path,
) -> None:
    """Search over somebody's server."""
    from airls_ray.errors import ConfigError

    named = settings.search.scorer
    if prm is None and named.needs == "prm":
        raise ConfigError(
            "a search over an endpoint is guided by a PRM or by a scorer of your own: give --prm, or set "
            "search.scorer=file.py:NAME"
        )
    if prm is not None and named.needs == "texts":
        raise ConfigError(f"--prm and search.scorer={named.name} exclude each other: give one of them")
    from airls_ray.api import load_prm
    from airls_ray.console.choose import make_progress
    from airls_ray.evaluation.endpoint import Connection
    from airls_ray.prm.forms import check_prm
    from airls_ray.search.endpoint_task import search_task_by_endpoint
    from airls_ray.search.over_endpoint import scoring_by_name, scoring_of
    from airls_ray.search.own_scorer import OwnScorer

    if prm is None or named.needs != "prm":
        scoring = scoring_by_name(named)
    else:
        check_prm(prm)
        scoring = scoring_of(lambda: load_prm(prm).scorer, prm)
    search_task_by_endpoint(
        settings,
        Connection(url, model, settings.rollout.deadline_seconds),
        scoring,
        output,
        make_progress(),
        tokenizer=tokenizer,
    )
    if named.needs == "texts" and isinstance(own := scoring.load(), OwnScorer) and (said := own.told()):
        typer.echo(f"{named.shown}: {said}")
    typer.echo(f"Responses and summary: {output}")


def _search_overrides(algorithms: list[str] | None, budgets: list[int] | None) -> list[str]:
    from airls_ray.search.registry import ready_searches

    overrides = []
    if algorithms:
        names = ready_searches() if algorithms == ["all"] else algorithms
        overrides.append(f"search.algorithms={json.dumps(names)}")
    if budgets:
        overrides.append(f"search.budgets=[{','.join(map(str, budgets))}]")
    return overrides


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
) -> None:
    """Write report.html of a run: curves, accuracy against N, search trees, and rollouts to look through."""
    from airls_ray.errors import RunError
    from airls_ray.report import write_report

    if not (run / "config.yaml").is_file():
        raise RunError(f"{run} is not a run folder: it has no config.yaml")
    typer.echo(f"Report: {write_report(run)}")
