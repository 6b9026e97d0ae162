"""`airls-ray evaluate`: responses of a policy, an endpoint or a file, graded and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import cluster
from actors.commands.prm_labels import policy_fingerprint
from actors.commands.samplers import Samplers, started_samplers
from actors.rollout.rollout_worker import RolloutRequest
from actors.train.start import connected
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import to_graders
from airls_ray.console.choose import make_progress
from airls_ray.data.check_config import check_before
from airls_ray.data.problems import ProblemStream, content_of
from airls_ray.data.schemas import OUTPUTS, rows_to_table
from airls_ray.data.stored_outputs import grade_responses, read_responses
from airls_ray.evaluation.endpoint import Asked, Endpoint
from airls_ray.evaluation.output_parts import OutputParts
from airls_ray.evaluation.outputs import GREEDY
from airls_ray.grading.pool import GraderPool
from airls_ray.models.check import check_model_folder
from airls_ray.runs.checkpoint_record import fingerprints
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import WHOLE, Truncation

SEED_PATH = "evaluate"

_CONTENTS = ("problems_content", "files_content")
"""Settings that older evaluations do not hold."""


def evaluate_policy(config: Config, policy: str, output: Path, resume: bool) -> dict[str, Any]:
    """Sample the test problems with a policy on rollout workers: one greedy response and `search.samples`.

    Args:
        config: task, engine, `search.problems`, `samples`, `temperature` and `problems_per_call`.
        policy: folder or hub name.
        output: folder of outputs.parquet and summary.json.
        resume: go on with what is there.

    Returns:
        See `measure_outputs`; `settings` besides.

    Raises:
        UserError: bad model or data, too few resources, a deadline, another evaluation in `output`.
    """
    check_model_folder(policy, context_tokens=config.model.context_tokens)
    policy = str(Path(policy).resolve()) if Path(policy).is_dir() else policy
    progress, problems = make_progress(), test_problems(config)
    check_before(config, progress, splits=("test",), traces=False)
    engine = {
        "policy": policy_fingerprint(policy),
        "max_response_tokens": config.rollout.max_response_tokens,
        "prompt_template": config.model.prompt_template,
    } | _keywords(config)
    parts = OutputParts(output, _settings(config) | _asked(problems) | engine, resume, _CONTENTS)
    chunk = config.search.problems_per_call
    if parts.missing(problems, chunk):
        codec = TextCodec.for_model(config.model, policy, make_task(config.task))
        with connected(config), started_samplers(config, policy, progress) as samplers:
            parts.make(
                problems, chunk, lambda first, some: _sample(samplers, config, codec, first, some), progress
            )
    return parts.finish(problems, chunk, progress, config.seed)


def evaluate_endpoint(config: Config, url: str, model: str, output: Path, resume: bool) -> dict[str, Any]:
    """The same with an OpenAI-compatible endpoint; starts no engine and no cluster."""
    progress, problems = make_progress(), test_problems(config)
    check_before(config, progress, splits=("test",), traces=False, encodes=False)
    tokens = config.rollout.max_response_tokens
    settings = _settings(config) | {"endpoint": url, "model": model, "max_response_tokens": tokens}
    settings |= _asked(problems) | _keywords(config)
    parts = OutputParts(output, settings, resume, _CONTENTS)
    endpoint = Endpoint(
        url,
        model,
        config.rollout.deadline_seconds,
        make_task(config.task),
        config.model.chat_template_kwargs,
    )
    asked = Asked(
        config.search.samples,
        config.search.temperature,
        tokens,
        config.seed,
        Truncation.of(config.search),
    )
    chunk = config.search.problems_per_call
    with _graders(config) as pool:
        parts.make(
            problems,
            chunk,
            lambda first, some: grade_responses(endpoint.responses(some, first, asked), some, pool),
            progress,
        )
    return parts.finish(problems, chunk, progress, config.seed)


def evaluate_files(config: Config, paths: Sequence[Path], output: Path, resume: bool) -> dict[str, Any]:
    """Grade and measure stored responses; starts no engine and no cluster."""
    progress, problems = make_progress(), test_problems(config)
    responses = read_responses(paths, problems)
    check_before(config, progress, splits=("test",), traces=False, encodes=False)
    settings = _settings(config) | {"files": [str(path) for path in paths], "responses": len(responses)}
    sampling = ("samples", "temperature", *Truncation.of(config.search).given())
    settings = {name: value for name, value in settings.items() if name not in sampling}
    settings |= _asked(problems) | {"files_content": fingerprints({"files": paths})}
    parts = OutputParts(output, settings, resume, _CONTENTS)
    chunk = config.search.problems_per_call
    with _graders(config) as pool:

        def grade(first: int, some: pa.Table) -> pa.Table:
            rows = range(first, first + some.num_rows)
            return grade_responses([one for one in responses if one.problem in rows], problems, pool)

        parts.make(problems, chunk, grade, progress, "Grading")
    return parts.finish(problems, chunk, progress, config.seed)


def test_problems(config: Config) -> pa.Table:
    """The first `search.problems` test problems of the task."""
    return ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)


def _graders(config: Config) -> GraderPool:
    section = config.verifier
    return GraderPool(to_graders(config.task), section.processes, section.deadline_seconds)


def _settings(config: Config) -> dict[str, Any]:
    return {
        "task": config.task.model_dump(mode="json"),
        "problems": config.search.problems,
        "samples": config.search.samples,
        "temperature": config.search.temperature,
        "problems_per_call": config.search.problems_per_call,
        "seed": config.seed,
        **Truncation.of(config.search).given(),
    }


def _asked(problems: pa.Table) -> dict[str, str]:
    return {"problems_content": content_of(problems)}


def _keywords(config: Config) -> dict[str, Any]:
    """Settings that are left out where they have their default, as in evaluations made before they were."""
    given = config.model.chat_template_kwargs
    return {"chat_template_kwargs": given} if given else {}


def _sample(samplers: Samplers, config: Config, codec: TextCodec, first: int, problems: pa.Table) -> pa.Table:
    """Graded responses to a chunk of problems: its greedy ones, then its samples."""
    path = (SEED_PATH, first)
    tables = []
    for greedy in (True, False):
        request = RolloutRequest(
            1 if greedy else config.search.samples,
            0.0 if greedy else config.search.temperature,
            config.seed, path, first,
            WHOLE if greedy else Truncation.of(config.search),
        )  # fmt: skip
        refs = samplers.pool.generate(problems, request)
        grades = cluster.resolve([samplers.verifier.grade(refs, problems)])[0]
        tables.append(_outputs(pa.concat_tables(cluster.resolve(refs)), grades, codec, greedy))
    return pa.concat_tables(tables)


def _outputs(rollouts: pa.Table, grades: pa.Table, codec: TextCodec, greedy: bool) -> pa.Table:
    names = ("problem_id", "index", "response", "finish")
    rows = [
        (problem, GREEDY if greedy else index, codec.decode(tokens), len(tokens), finish, *grade)
        for (problem, index, tokens, finish), grade in zip(
            zip(*(rollouts[name].to_pylist() for name in names), strict=True),
            zip(*(grades[name].to_pylist() for name in ("outcome", "answer", "status")), strict=True),
            strict=True,
        )
    ]
    return rows_to_table(rows, OUTPUTS)
