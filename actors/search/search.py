"""`airls-ray search`: policy, PRM and problems in; records, table and curves of every algorithm out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.search.search_parts import ScorerGroup
from actors.search.search_setup import SearchParts, check_models, start
from actors.train.launch_checks import record_doors
from actors.train.start import connected
from airls_ray import files
from airls_ray.config.door_section import ScorerConfig
from airls_ray.config.schema import Config
from airls_ray.config.search_section import AlgorithmName, SearchConfig, search_label
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.problems import ProblemStream, content_of
from airls_ray.runs.checkpoint_record import fingerprints
from airls_ray.search import journal as journals
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.live import Read, Search, SearchProblem, Seconds
from airls_ray.search.plots import draw_abstention, draw_curves
from airls_ray.search.records import Run, Verdict, make_record
from airls_ray.search.registry import algorithm_of, make_searcher, own_of_search
from airls_ray.search.searcher import Searcher
from airls_ray.search.summary import flat_share, sample_curves, summarise, table_rows
from airls_ray.search.try_scorer import try_scorer
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Split
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import Truncation
from airls_ray.version import versions

_FLAT_SEARCHES = 0.5
"""Share of searches whose responses score the same from which the command says so."""

_NOT_COMPARED = (
    *("abstain", "algorithms", "budgets", "keep_nodes", "resources", "scorers", "samples"),
    "problems_per_call",
)
"""Sections and settings of `search` that change no record, or of which a record says what it was."""

_NEWER = ("chunk_reset", "adaptive_consistency", "instance_adaptive", "auto", "vote", "overlap")
"""Settings of `search` that records of older searches do not know of."""

_NEWER_THAN_JOURNALS = ("models", "dtype", "prompt_template", "problems", "context_tokens")
"""What the first line of older journals lacks."""


def run_search(
    config: Config,
    policy: Path,
    prm: Path | None,
    output: Path,
    resume: bool = False,
    problems: pa.Table | None = None,
) -> dict[str, Any]:
    """Search the task's test problems by every algorithm and budget of `config.search`.

    Args:
        config: task, engine and `search` section.
        policy: policy folder (or hub name).
        prm: `prm` folder of a checkpoint; None with the scorers that need none.
        output: folder of records.jsonl, records.parquet, summary.json, curves.png and abstention.png.
        resume: go on with the records that are there.
        problems: training problems (PROBLEMS) to search instead.

    Returns:
        The summary.

    Raises:
        ModelError: a folder is missing, broken, or the two do not fit.
        ConfigError: the scorer is the PRM, but none is given; or an algorithm does not open.
        DataError: `output` holds another search.
    """
    started = time.perf_counter()
    for name in config.search.algorithms:  # what does not open is found out before anything is loaded
        make_searcher(name, config.search, max(config.search.budgets), "prod")
    progress = make_progress()
    try_scorer(config.search.scorer, progress)
    config = check_models(config, policy, prm)
    split: Split = "test" if problems is None else "train"
    if problems is None:
        problems = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)
    settings = _settings(config, policy, prm, problems)
    journal = journals.Journal(output, settings, resume, newer=_NEWER_THAN_JOURNALS)
    record_doors(output, own_of_search(config.search), progress)
    check_before(config, progress, splits=(split,), traces=False)
    codec = TextCodec.for_model(config.model, policy, make_task(config.task))
    order = [
        (search_label(name), config.search.scorer.shown, budget, config.seed, problem_id)
        for name in config.search.algorithms
        for budget in config.search.budgets
        for problem_id in problems["problem_id"].to_pylist()
    ]
    seconds: list[dict[str, Any]] = []
    if any(key not in journal.records for key in order):
        with (
            connected(config),
            closing(start(config, policy, prm, problems, codec, progress)) as parts,
        ):
            seconds += [
                search_all(parts, name, budget, journal, progress)
                for name in config.search.algorithms
                for budget in config.search.budgets
            ]
    journal.write_parquet(order)
    return finish(config, policy, prm, journal, order, seconds, output, progress, started)


def search_all(
    parts: SearchParts, name: AlgorithmName, budget: int, journal: journals.Journal, progress: Progress
) -> dict[str, Any]:
    """Search every problem that has no record yet, `search.live_problems` at a time.

    Which problems are live together depends on their positions alone: a batch of which a record is missing is
    searched again as a whole, so that the records of a resumed search are those of one that ran through.
    Returns where the time went.
    """
    config, problems = parts.config, parts.problems
    search = config.search
    searcher = make_searcher(name, search, budget, parts.aggregate)
    algorithm, label = algorithm_of(name), search_label(name)
    run = Run(label, search.scorer.shown, budget, config.seed, search.answer or algorithm.answer, search.vote)
    identifiers = problems["problem_id"].to_pylist()
    done = [(label, search.scorer.shown, budget, config.seed, one) in journal.records for one in identifiers]
    spent = Seconds()
    tokens = solved = searched = 0
    with progress.track(f"{algorithm.label}, N = {budget}", len(identifiers)) as bar:
        for start in range(0, len(identifiers), search.live_problems):
            batch = range(start, min(start + search.live_problems, len(identifiers)))
            if all(done[at] for at in batch):
                bar.advance(len(batch))
                continue
            records, seconds = search_batch(parts, searcher, run, batch)
            journal.add(records)
            spent.add(seconds)
            searched += len(records)
            solved += sum(record["outcome"] > 0.5 for record in records)
            tokens += sum(record["policy_tokens"] for record in records)
            bar.advance(
                len(batch), accuracy=round(solved / searched, 3), tokens_per_second=tokens / spent.total
            )
    return {
        "algorithm": label,
        "budget": budget,
        "problems": searched,
        "generate": spent.generate,
        "score": spent.score,
        "driver": spent.driver,
        "total": spent.total,
    }


def search_batch(
    parts: SearchParts, searcher: Searcher, run: Run, batch: Sequence[int]
) -> tuple[list[dict[str, Any]], Seconds]:
    """Search some problems together; returns their records, graded, in order."""
    config, problems = parts.config, parts.problems
    room = config.model.context_tokens - config.rollout.max_response_tokens
    parts.pool.forget_prefixes()
    if isinstance(parts.scorer, ScorerGroup):
        parts.scorer.forget()
    texts, details = problems["prompt"], problems["details"]
    prompts = {at: tuple(parts.codec.encode_problem(texts[at].as_py(), details[at].as_py())) for at in batch}
    fitting: list[SearchProblem] = []
    refused: list[SearchProblem] = []
    for at in batch:
        problem_id = problems["problem_id"][at].as_py()
        seed = derive_seed(config.seed, "search", run.algorithm, run.budget, problem_id)
        problem = SearchProblem(at, problem_id, prompts[at], seed, texts[at].as_py())
        (fitting if len(prompts[at]) <= room else refused).append(problem)
    driver = SearchDriver(
        parts.generator, parts.scorer, parts.codec.is_blank, parts.settings, answer_reader(parts)
    )
    searches = run_searches(searcher, fitting, driver)
    for problem in refused:  # no room for an answer: it counts as wrong, and the others go on
        searches.append(driver.start(searcher, problem))
        searches[-1].stop("prompt_too_long")
    leaves = [(search, leaf) for search in searches for leaf in searcher.leaves(search.state)]
    grades = parts.verifier.call(
        "judge",
        problems,
        [search.problem.number for search, _ in leaves],
        [search.state.response(leaf) for search, leaf in leaves],
        [search.state.step_ends(leaf) for search, leaf in leaves],
    )
    columns = (grades[name].to_pylist() for name in ("answer", "outcome", "step_truth"))
    verdicts = iter(
        [
            Verdict(answer, outcome, _step_texts(parts.codec, search, leaf), truth)
            for (search, leaf), answer, outcome, truth in zip(leaves, *columns, strict=True)
        ]
    )
    records = [
        make_record(
            search,
            searcher,
            run,
            parts.aggregate,
            [next(verdicts) for _ in searcher.leaves(search.state)],
            problems["prompt"][search.problem.number].as_py(),
            config.search.keep_nodes,
        )
        for search in searches
    ]
    position = {problem_id.as_py(): at for at, problem_id in enumerate(problems["problem_id"])}
    return sorted(records, key=lambda record: position[record["problem_id"]]), driver.seconds


def answer_reader(parts: SearchParts) -> Read:
    """Return what reads answers: the verifier, whose verdicts are dropped."""

    def read(problems: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
        numbers = [problem.number for problem in problems]
        grades = parts.verifier.call("judge", parts.problems, numbers, responses, [[]] * len(numbers))
        answers: list[str | None] = grades["answer"].to_pylist()
        return answers

    return read


def _step_texts(codec: TextCodec, search: Search, leaf: int) -> list[str]:
    return codec.step_texts(search.state.response(leaf), search.state.step_ends(leaf))


def finish(
    config: Config,
    policy: Path,
    prm: Path | None,
    journal: journals.Journal,
    order: Sequence[journals.Key],
    seconds: list[dict[str, Any]],
    output: Path,
    progress: Progress,
    started: float,
) -> dict[str, Any]:
    """Write summary and picture, print the table."""
    records = [journal.records[key] for key in order]
    rows = summarise(
        records, derive_seed(config.seed, "bootstrap"), config.search.vote, config.search.abstain
    )
    too_long = sum(record["stopped_by"] == "prompt_too_long" for record in records)
    if too_long:
        progress.say(
            f"{too_long} searches had a prompt longer than model.context_tokens less "
            "rollout.max_response_tokens and count as wrong: raise the first or lower the second"
        )
    flat = flat_share(records)
    if flat > _FLAT_SEARCHES:
        progress.say(
            f"the finished responses of {flat:.0%} of the searches have the same score: "
            f"{config.search.scorer.shown} tells nothing apart there. Train the PRM longer, or set another "
            "prm.search_score"
        )
    summary: dict[str, Any] = {
        "policy": str(policy),
        "prm_path": None if prm is None else str(prm),
        "task": config.task.name,
        "seed": config.seed,
        "scorer": config.search.scorer.shown,
        "problems": len({record["problem_id"] for record in records}),
        "algorithms": rows,
        "best_of_n": sample_curves(records, derive_seed(config.seed, "search"), config.search.vote),
        "seconds": {"total": time.perf_counter() - started, "searches": seconds},
        "versions": versions(),
    }
    files.write_text(output / "summary.json", files.to_json(summary, indent=2) + "\n")
    draw_abstention(output / "abstention.png", rows, f"{config.task.name}: answers that are given")
    draw_curves(output / "curves.png", rows, f"{config.task.name}: {summary['problems']} problems")
    cells, columns = table_rows(rows)
    progress.table(f"Search on {summary['problems']} problems of {config.task.name}", cells, columns)
    return summary


def _settings(config: Config, policy: Path, prm: Path | None, problems: pa.Table) -> dict[str, Any]:
    """What records depend on: a resumed search must have the same."""
    tree = config.model_dump(mode="json", include={"task", "seed", "search", "rollout", "prm"})
    for name in _NOT_COMPARED:
        tree["search"].pop(name)
    for name in _NEWER:  # as older searches have it
        if getattr(config.search, name) == getattr(SearchConfig(), name):
            tree["search"].pop(name)
    tree["rollout"] = {name: tree["rollout"][name] for name in ("temperature", "max_response_tokens")}
    for name in (one.name for one in fields(Truncation)):  # the records of older searches do not know of it
        tree["search"].pop(name)
    if config.search.scorer == ScorerConfig(name=config.search.scorer.name):  # as older searches have it
        tree["search"]["scorer"] = config.search.scorer.name
    tree["search"] |= Truncation.of(config.search).given()
    tree["prm"] = {
        name: tree["prm"][name] for name in ("parameterisation", "search_score", "search_aggregate")
    }
    if config.model.chat_template_kwargs:
        tree["chat_template_kwargs"] = config.model.chat_template_kwargs
    read = {
        "policy": policy,
        "prm": prm,
        "search.instance_adaptive.calibration": config.search.instance_adaptive.calibration,
        "search.auto.plan": config.search.auto.plan,
    }
    return {
        **tree,
        "policy": str(policy),
        "prm_folder": None if prm is None else str(prm),
        "models": fingerprints(read),
        "dtype": config.model.dtype,
        "prompt_template": config.model.prompt_template,
        "problems": content_of(problems),
        "context_tokens": config.model.context_tokens,  # longer prompts are refused, and count as wrong
    }
