"""Labels of steps by sampling: rollouts, completions of their prefixes, verdicts, a file with the cost.

The problems are cut into chunks, and the labels of each are written before the next one begins: an
interruption loses one chunk at most.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.cluster import cluster
from actors.commands.prefix_completions import PrefixCompleter
from actors.commands.samplers import started_samplers
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.train.tracking import graded_table
from actors.verify.verifier_handle import VerifierHandle
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.data.lengths import fit_of
from airls_ray.data.prm_labels import LabelFacts, add_costs, read_facts, read_labels, write_labels
from airls_ray.data.problems import ProblemStream, take_distinct
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import DataError
from airls_ray.prm.first_errors import find_first_errors
from airls_ray.prm.label_rule import LabelRule
from airls_ray.prm.spoiled import Judge, add_spoiled
from airls_ray.prm.step_labels import (
    Completed,
    chunks,
    known_to,
    label_steps,
    rule_record,
)
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import Truncation

SEED_PATH = ("train_prm",)
_HASHED_BYTES = 2**20


def make_labels(config: Config, policy: str, file: Path, progress: Progress) -> tuple[pa.Table, LabelFacts]:
    """Label rollouts of the policy by `config.supervised_prm` and leave them in `file` (PRM_LABELS).

    What an earlier call with the same settings has left there is not sampled again. Must be connected to
    a cluster; the actors end with the call.

    Returns:
        The labels and what they cost.

    Raises:
        DataError: the file holds labels of other settings.
        UserError: too few resources, a dead process, a deadline.
    """
    settings = label_settings(config, policy)
    parts = file.with_name(file.stem + "_parts")
    if file.exists():
        facts = facts_of(file, settings)
        files.remove(parts)
        return read_labels(file), facts
    codec = TextCodec.for_model(config.model, policy, make_task(config.task))
    problems = training_problems(config, codec)
    wanted = {
        parts / f"{rows.start:06d}-{rows.stop:06d}.parquet": rows
        for rows in chunks(problems.num_rows, config.supervised_prm.problems_per_call)
    }
    if parts.exists():
        files.remove_leftovers(parts)
    missing = [part for part in wanted if not part.exists()]
    kept = [facts_of(part, settings) for part in wanted if part not in missing]
    if kept:
        progress.say(f"{len(kept)} of {len(wanted)} chunks of labels are there from an earlier run")
    if missing:
        with started_samplers(config, policy, progress) as samplers:
            done = sum(len(wanted[part]) for part in wanted if part not in missing)
            with progress.track("Labelling", problems.num_rows, done=done) as bar:
                for part in missing:
                    rows = wanted[part]
                    chunk = problems.slice(rows.start, len(rows))
                    table, cost = label_chunk(
                        config, samplers.pool, samplers.verifier, codec, chunk, rows.start
                    )
                    write_labels(table, part, LabelFacts(settings, cost))
                    bar.advance(len(rows), outcome=pc.mean(table["outcome"]).as_py())
    facts = LabelFacts(settings, add_costs([facts_of(part, settings).cost for part in wanted]))
    table = pa.concat_tables([read_labels(part) for part in wanted]).combine_chunks()
    write_labels(table, file, facts)
    files.remove(parts)
    return table, facts


def label_settings(config: Config, policy: str) -> dict[str, Any]:
    """What labels depend on, as plain values."""
    section, keywords = config.supervised_prm, config.model.chat_template_kwargs
    rule: LabelRule = section.labels.open()
    younger: dict[str, Any] = {"chat_template_kwargs": keywords} if keywords else {}  # not in older files
    younger |= {"spoiled": True} if section.spoiled else {}
    return (
        younger
        | dict(Truncation.of(config.rollout).given())
        | {
            "labels": rule_record(section.labels),
            "completions": section.completions if rule.needs_completions else 0,
            "problems": section.problems,
            "rollouts_per_problem": section.rollouts_per_problem,
            "temperature": config.rollout.temperature,
            "max_response_tokens": config.rollout.max_response_tokens,
            "prompt_template": config.model.prompt_template,
            "seed": config.seed,
            "task": config.task.model_dump(mode="json"),
            "policy": policy_fingerprint(policy),
        }
    )


def policy_fingerprint(policy: str) -> str:
    """Return what tells one policy's weights from another's: a hash of the ends of its weight files.

    The end is the last MiB: training moves every weight, and whole files can be many GiB. A hub name stands
    for itself.
    """
    if not Path(policy).is_dir():
        return policy
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(Path(policy).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as opened:
            opened.seek(max(size - _HASHED_BYTES, 0))
            digest.update(opened.read())
    return digest.hexdigest()


def training_problems(config: Config, codec: TextCodec) -> pa.Table:
    """The problems whose rollouts are labelled, each once; fewer than asked where the task has fewer."""
    seed = derive_seed(config.seed, *SEED_PATH)
    stream = ProblemStream(make_task(config.task), "train", seed, fit=fit_of(config, codec))
    return take_distinct(stream, config.supervised_prm.problems)


def label_chunk(
    config: Config,
    pool: RolloutPool,
    verifier: VerifierHandle,
    codec: TextCodec,
    problems: pa.Table,
    first_group: int,
) -> tuple[pa.Table, dict[str, float]]:
    """Sample and label the rollouts of a chunk of problems.

    All completions of the chunk are sampled in one pass of the pool, those of a search in one for each of its
    rounds. The labels depend on the seed and the problems, not on the chunk or the number of workers.

    Returns:
        Table of schema PRM_LABELS and the cost: `problems, rollouts, prefixes, distinct_prefixes` (those that
        were completed)`, completions, labelling_rollouts` (rollouts and completions), `rollout_tokens,
        completion_tokens, tokens` (sampled), `seconds`.
    """
    started = time.perf_counter()
    section, temperature = config.supervised_prm, config.rollout.temperature
    truncation = Truncation.of(config.rollout)
    request = RolloutRequest(
        section.rollouts_per_problem, temperature, config.seed, SEED_PATH, first_group, truncation
    )
    sampled = pool.generate(problems, request)
    grades = verifier.grade(sampled, problems)
    rollouts = graded_table(sampled, grades)
    cost = {
        "problems": problems.num_rows,
        "rollouts": rollouts.num_rows,
        "prefixes": 0,
        "distinct_prefixes": 0,
        "completions": 0,
        "rollout_tokens": pc.sum(pc.list_value_length(rollouts["response"])).as_py() or 0,
        "completion_tokens": 0,
    }
    completed: Completed | None = None
    first_errors: np.ndarray | None = None
    rule: LabelRule = section.labels.open()
    if rule.needs_completions:
        completions = RolloutRequest(
            section.completions, temperature, config.seed, SEED_PATH, truncation=truncation
        )
        completer = PrefixCompleter(pool, verifier, problems, rollouts, completions)
        if rule.needs_search:
            known = known_to(rollouts, None)
            steps = np.bincount(known["step_rows"], minlength=rollouts.num_rows)
            first_errors = find_first_errors(steps, known["outcomes"], known["groups"], completer.probe)
        else:
            completer.complete_all()
        completed = completer.completed
        cost |= completer.cost
    labels = label_steps(section.labels, known_to(rollouts, completed, first_errors))
    table = _label_table(rollouts, cluster.resolve([grades])[0], labels, problems, codec)
    if section.spoiled:
        judge = _judge_of(verifier, problems)
        table = add_spoiled(table, codec, judge, config.seed, config.rollout.max_response_tokens)
    cost["labelling_rollouts"] = cost["rollouts"] + cost["completions"]
    cost["tokens"] = cost["rollout_tokens"] + cost["completion_tokens"]
    return table, {**cost, "seconds": time.perf_counter() - started}


def _judge_of(verifier: VerifierHandle, problems: pa.Table) -> Judge:
    """What grades responses to problems by their identifiers."""
    rows = {problem: row for row, problem in enumerate(problems["problem_id"].to_pylist())}

    def judge(asked: Sequence[str], responses: Any, ends: Any) -> list[tuple[float, list[bool] | None]]:
        grades = verifier.call("judge", problems, [rows[problem] for problem in asked], responses, ends)
        return list(zip(grades["outcome"].to_pylist(), grades["step_truth"].to_pylist(), strict=True))

    return judge


def _label_table(
    rollouts: pa.Table, grades: pa.Table, labels: pa.Array, problems: pa.Table, codec: TextCodec
) -> pa.Table:
    prompts = dict(zip(problems["problem_id"].to_pylist(), problems["prompt"].to_pylist(), strict=True))
    responses, ends = rollouts["response"].to_pylist(), rollouts["step_ends"].to_pylist()
    columns = {
        "labels": labels,
        "step_truth": grades["step_truth"],
        "prompt_text": pa.array([prompts[pid] for pid in rollouts["problem_id"].to_pylist()], pa.string()),
        "step_texts": pa.array(
            [codec.step_texts(*row) for row in zip(responses, ends, strict=True)], pa.list_(pa.string())
        ),
    }
    return pa.table(
        {name: columns[name] if name in columns else rollouts[name] for name in PRM_LABELS.names},
        schema=PRM_LABELS,
    )


def facts_of(file: Path, settings: dict[str, Any]) -> LabelFacts:
    """The facts of a file of ours.

    Raises:
        DataError: its labels were made with other settings.
    """
    facts = read_facts(file)
    theirs: dict[str, Any] = {} if facts is None else facts.settings
    # What is as by default may be in neither; what only the file has was set when its labels were made.
    other = sorted(name for name in settings | theirs if theirs.get(name) != settings.get(name))
    if facts is None or other:
        raise DataError(
            f"{file} holds labels that were made with another {', '.join(other)}: give another --output, "
            f"delete {file if file.stem.startswith('labels') else file.parent}, or use the file with --labels"
        )
    return facts
