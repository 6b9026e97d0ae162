"""`search --endpoint`: the test problems of a task searched over somebody's server, graded and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.config.search_section import search_label
from airls_ray.config.task_choice import to_graders
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.doors import record
from airls_ray.errors import ConfigError, RunError
from airls_ray.evaluation.endpoint import Connection
from airls_ray.grading.pool import GradeRequest, GradeResult, GraderPool
from airls_ray.search.over_endpoint import Scoring, SearchResult, TextForm, search_by_endpoint
from airls_ray.search.registry import own_of_search
from airls_ray.tasks import Problem, make_task
from airls_ray.text.codec import TextCodec
from airls_ray.text.messages import history_of

RESULTS, SUMMARY, DOORS = "results.jsonl", "summary.json", "doors.json"


def search_task_by_endpoint(
    config: Config,
    connection: Connection,
    scoring: Scoring,
    output: Path,
    progress: Progress,
    *,
    tokenizer: Path | str | None = None,
) -> dict[str, Any]:
    """Search the test problems by each algorithm and width of `search`, and write what was found.

    Args:
        config: the sections task (of files), search, model.prompt_template and its keywords,
            rollout.max_response_tokens, verifier and seed.
        connection: the policy.
        scoring: the PRM, or another scorer; it is loaded once.
        output: folder of `results.jsonl` (a line for each search of a problem), `summary.json` and, where
            code of the user's was run, `doors.json`.
        progress: where bar and table go.
        tokenizer: of the policy; None: everything goes as text.

    Returns:
        `scorer`; `algorithms`: for each algorithm and width `accuracy`, `oracle` (any is right) and the means
        over the problems of the ledger's figures; `problems`: how many.

    Raises:
        ConfigError: the task is none of files, or what `search_by_endpoint` raises.
        DataError: prompts are messages, and no tokenizer or chat template is there to write them.
        RunError: there are results already; or the endpoint fails.
    """
    task, search = config.task, config.search
    if not isinstance(task, FileTaskConfig):
        raise ConfigError(
            f"search --endpoint reads the problems of files, and the task is {task.name}: set task.name=file"
        )
    if (output / RESULTS).exists():
        raise RunError(f"{output} has results already: give another --output")
    check_before(config, progress, splits=("test",), traces=False, encodes=tokenizer is not None)
    problems = list(islice(make_task(task).problems("test", config.seed), search.problems))
    thought = (
        ""
        if tokenizer is None
        else TextCodec.for_model(config.model, tokenizer, make_task(task)).open_thought
    )
    chat = tokenizer is not None and config.model.prompt_template == "chat"
    form = TextForm(task.prompt_template, task.system_prompt, task.steps.model_dump(), task.step_delimiter)
    once = replace(scoring, load=cache(lambda: scoring.load()))
    settings = search.model_dump(mode="json", exclude={"algorithms", "budgets"})
    pairs = [(name, budget) for name in search.algorithms for budget in search.budgets]
    output.mkdir(parents=True, exist_ok=True)
    if own := own_of_search(search):
        files.write_text(output / DOORS, files.to_json(record(own), indent=1) + "\n")
    rows: list[dict[str, Any]] = []
    with (
        GraderPool(to_graders(task), config.verifier.processes, config.verifier.deadline_seconds) as pool,
        (output / f"{RESULTS}.part").open("w", encoding="utf-8") as file,
        progress.track("Searching", len(pairs) * len(problems)) as bar,
    ):
        for algorithm, budget in pairs:
            verdicts = _Verdicts(problems, pool, thought)
            found = search_by_endpoint(
                connection,
                [one.prompt for one in problems],
                once,
                algorithm=algorithm,
                budget=budget,
                form=form,
                tokenizer=tokenizer,
                chat=chat,
                chat_template_kwargs=config.model.chat_template_kwargs if chat else {},
                histories=[history_of(one.details) for one in problems],
                max_response_tokens=config.rollout.max_response_tokens,
                seed=config.seed,
                settings=settings,
                read=verdicts.answers,
            )
            outcomes = _grade(found, verdicts)
            file.writelines(_lines(search_label(algorithm), scoring.name, budget, problems, found, outcomes))
            file.flush()
            rows.append({"algorithm": search_label(algorithm), "budget": budget, **_figures(found, outcomes)})
            bar.advance(len(problems))
    (output / f"{RESULTS}.part").rename(output / RESULTS)
    summary = {"problems": len(problems), "scorer": scoring.name, "algorithms": rows}
    files.write_text(output / SUMMARY, files.to_json(summary, indent=1) + "\n")
    progress.table(f"{len(problems)} problems over {connection}", _table(rows))
    return summary


class _Verdicts:
    """What the task's grader says of responses; each is graded once."""

    def __init__(self, problems: Sequence[Problem], pool: GraderPool, thought: str = "") -> None:
        """`thought`: see `TextCodec.open_thought`."""
        self._problems, self._pool, self._thought = problems, pool, thought
        self._known: dict[tuple[int, str], GradeResult] = {}

    def of(self, asked: Sequence[tuple[int, str]]) -> list[GradeResult]:
        """Return those of some responses, each with the number of its problem."""
        new = [one for one in dict.fromkeys(asked) if one not in self._known]
        self._known.update(zip(new, self._pool.grade([self._request(*one) for one in new]), strict=True))
        return [self._known[one] for one in asked]

    def answers(self, asked: Sequence[tuple[int, str]]) -> list[str | None]:
        """Return the answers that the grader reads in them."""
        return [one.answer for one in self.of(asked)]

    def _request(self, number: int, response: str) -> GradeRequest:
        problem = self._problems[number]
        details = json.dumps(problem.details)
        return GradeRequest(problem.prompt, problem.answer, details, response, open_thought=self._thought)


def _grade(found: Sequence[SearchResult], verdicts: _Verdicts) -> list[tuple[float, list[float]]]:
    """Return for each problem the outcome of the chosen response (the mean of all that tie; 0: there is
    none), and those of all."""
    asked = [(number, one.response) for number, result in enumerate(found) for one in result.candidates]
    grades = iter(verdicts.of(asked))
    judged = []
    for result in found:
        outcomes = [next(grades).outcome for _ in result.candidates]
        chosen = sum(share * one for share, one in zip(result.chances, outcomes, strict=True))
        judged.append((chosen, outcomes))
    return judged


def _lines(
    algorithm: str,
    scorer: str,
    budget: int,
    problems: Sequence[Problem],
    found: Sequence[SearchResult],
    outcomes: Sequence[tuple[float, list[float]]],
) -> Iterator[str]:
    for problem, result, (outcome, all_outcomes) in zip(problems, found, outcomes, strict=True):
        line = {
            "algorithm": algorithm,
            "scorer": scorer,
            "budget": budget,
            "problem_id": problem.problem_id,
            "outcome": outcome,
            "response": result.response,
            "candidates": [
                {**asdict(one), "outcome": right}
                for one, right in zip(result.candidates, all_outcomes, strict=True)
            ],
            "costs": dict(result.costs),
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _figures(
    found: Sequence[SearchResult], outcomes: Sequence[tuple[float, list[float]]]
) -> dict[str, float]:
    count = max(len(found), 1)
    figures = {
        "accuracy": sum(chosen for chosen, _ in outcomes) / count,
        "oracle": sum(max(several, default=0.0) for _, several in outcomes) / count,
    }
    for name in found[0].costs if found else ():
        figures[name] = sum(result.costs[name] for result in found) / count
    return figures


def _table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "algorithm": row["algorithm"],
            "N": row["budget"],
            "accuracy": row["accuracy"],
            "any right": row["oracle"],
            "policy tokens a problem": row.get("policy_tokens"),
        }
        for row in rows
    ]
