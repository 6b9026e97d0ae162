"""`evaluate`: how good a policy's, an endpoint's or stored responses are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airls_ray.cli.common import ConfigArgument, OverridesArgument, TrustOption, latest_policy, read_config


def evaluate(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Policy folder or hub name; by default that of the run's latest checkpoint."),
    ] = None,
    responses: Annotated[
        list[Path] | None,
        typer.Option(help="Stored responses (.jsonl, .json, .parquet; may be repeated) instead of a policy."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible endpoint instead of a policy.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name at the endpoint; by default `default`.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default evaluation/ in the run folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is there.")] = False,
    trust: TrustOption = False,
) -> None:
    """Grade responses to the test problems: accuracy, pass@k, majority@k, lengths, by level and subject.

    `search.problems`, `search.samples` and `search.temperature` say how many and how.
    """
    from airls_ray.errors import ConfigError

    given = [
        name
        for name, one in (("--policy", policy), ("--responses", responses), ("--endpoint", endpoint))
        if one
    ]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other: give one of them")
    if model is not None and not endpoint:
        raise ConfigError("--model is the name of an endpoint's model: give its address by --endpoint")
    settings = read_config(config, overrides, trust=trust or None)
    if not responses and not endpoint:
        from airls_ray.models.check import check_model_folder

        policy = policy or str(latest_policy(settings, None)[0])
        check_model_folder(policy, context_tokens=settings.model.context_tokens)
    from actors.commands.evaluate_outputs import evaluate_endpoint, evaluate_files, evaluate_policy

    target = output or settings.output / settings.name / "evaluation"
    if responses:
        evaluate_files(settings, responses, target, resume)
    elif endpoint:
        evaluate_endpoint(settings, endpoint, model or "default", target, resume)
    elif policy:
        evaluate_policy(settings, policy, target, resume)
    typer.echo(f"Responses and summary: {target}")
