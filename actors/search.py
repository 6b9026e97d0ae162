"""Search on its own: a policy folder and a PRM folder in, accuracy against N out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from actors import cluster
from actors.cluster import Demand
from actors.evaluate import Samples, by_size, measure_samples, sample_problems, scorer_metrics, versions
from actors.groups import NoPRM, PRMScorer, VerifierHandle
from actors.rollout_pool import RolloutPool
from actors.start import connected, start_workers, wait_for_start
from actors.tracking import graded_table
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.learning.prm_folder import read_prm_form
from airls_ray.models.check import check_model_folder
from airls_ray.progress import make_progress
from airls_ray.tasks import make_task


def run_search(config: Config, policy: Path, prm: Path | None, output: Path) -> dict[str, Any]:
    """Best-of-N with the PRM, majority and PRM-weighted vote on the task's test problems.

    Args:
        config: task, engine and `search` section.
        policy: policy folder (or hub name).
        prm: `prm` folder of a checkpoint; without one, majority and the policy's own log-probability.
        output: folder for samples.parquet and summary.json.

    Returns:
        The summary.

    Raises:
        ModelError: a folder is missing, broken, or the two do not fit.
    """
    from actors.prm_learner import PRMServer
    from actors.verifier import Verifier

    started = time.perf_counter()
    info = check_model_folder(policy, context_tokens=config.model.context_tokens)
    if prm is not None:
        config = config.model_copy(update={"prm": read_prm_form(prm, config.prm)})
        check_model_folder(prm, vocab_size=info.vocab_size, vocab_of=f"the policy {policy}")
    problems = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)
    progress = make_progress()
    output.mkdir(parents=True, exist_ok=True)
    with connected(config):
        asked = [
            Demand("rollout worker", config.rollout.resources, config.rollout.min_workers),
            Demand("verifier", config.verifier.resources),
        ]
        if prm is not None:
            asked.append(Demand("PRM server", config.prm.learner.resources))
        cluster.require_resources(asked, config.ray.resources_deadline_seconds)
        workers = start_workers(config, str(policy))
        verifier = cluster.start_actor(Verifier, "verifier", config.verifier.resources, config, str(policy))
        starting = {
            "rollout worker": [w.start.remote() for w in workers],
            "verifier": [verifier.start.remote()],
        }
        scorer: PRMScorer | NoPRM = NoPRM()
        if prm is not None:
            server = cluster.start_actor(
                PRMServer, "prm-0", config.prm.learner.resources, config, str(policy), str(prm)
            )
            starting["PRM server"] = [server.start.remote()]
            scorer = PRMScorer([server], config.train.deadline_seconds)
        wait_for_start(starting, config, progress)
        pool = RolloutPool(workers, config.rollout.deadline_seconds)
        judge = VerifierHandle(verifier, config.train.deadline_seconds)
        samples = sample_problems(pool, judge, problems, config, progress, "given")
        measured = measure_samples(samples, scorer, judge)
        pq.write_table(graded_table(samples.rollouts, samples.grades), output / "samples.parquet")
        judge.close()
    summary = _summary(config, policy, prm, samples, measured, time.perf_counter() - started)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _summary(
    config: Config, policy: Path, prm: Path | None, samples: Samples, measured: dict[str, Any], seconds: float
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "policy": str(policy),
        "prm_path": None if prm is None else str(prm),
        "task": config.task.name,
        "seed": config.seed,
        "problems": samples.problems.num_rows,
        "accuracy": samples.accuracy,
        "search": by_size(measured["search"].curves),
        "policy_log_prob": scorer_metrics("policy_log_prob", measured["scorers"]),
        "seconds": {"total": seconds},
        "versions": versions(),
    }
    if prm is not None:
        summary["prm"] = scorer_metrics("prm", measured["scorers"])
    return summary
