"""The problems that a policy never solves: sampled, graded, written to a file (rePIRL's hard problems)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.cluster import cluster
from actors.commands.samplers import started_samplers
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.train.launch_checks import check_lengths
from actors.train.start import connected
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.lengths import fit_of
from airls_ray.data.problems import ProblemStream, take_distinct, write_problems
from airls_ray.errors import DataError
from airls_ray.models.check import check_model_folder
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import Truncation

STREAM = "unsolved"


def write_unsolved(
    config: Config,
    policy: str,
    output: Path,
    problems: int,
    samples: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Sample every training problem `samples` times and write those without one right sample.

    Args:
        config: task, engine and `search.problems_per_call`.
        policy: folder or hub name.
        output: .jsonl or .parquet, for `task.train_file`.
        problems: how many training problems are tried.
        samples: N.
        progress: where the bar goes.

    Returns:
        `problems` tried, `unsolved`, `samples`, `mean_outcome`.

    Raises:
        DataError: every problem was solved, so there is nothing to write.
        UserError: bad model or data, too few resources, a deadline.
    """
    progress = progress or make_progress()
    check_model_folder(policy, context_tokens=config.model.context_tokens)
    check_lengths(config, policy, problems, progress, traces=False, stream=STREAM)
    check_before(config, progress, splits=("train",), traces=False)
    task = make_task(config.task)
    fit = fit_of(config, TextCodec.for_model(config.model, policy, task))
    stream = ProblemStream(task, "train", derive_seed(config.seed, STREAM), fit=fit)
    table = take_distinct(stream, problems)
    unsolved, means = [], []
    with (
        connected(config),
        started_samplers(config, policy, progress) as samplers,
        progress.track("Looking for unsolved problems", table.num_rows) as bar,
    ):
        for start in range(0, table.num_rows, config.search.problems_per_call):
            chunk = table.slice(start, config.search.problems_per_call)
            best, mean = _outcomes(samplers.pool, samplers.verifier, chunk, config, samples)
            unsolved += [start + row for row in np.flatnonzero(best < 0.5).tolist()]
            means.append(mean)
            bar.advance(chunk.num_rows, unsolved=len(unsolved))
    if not unsolved:
        raise DataError(
            f"all {table.num_rows} problems were solved within {samples} samples, so {output} was not "
            "written; try more problems or fewer samples"
        )
    write_problems(table.take(pa.array(unsolved)), output)
    return {
        "problems": table.num_rows,
        "unsolved": len(unsolved),
        "samples": samples,
        "mean_outcome": float(np.mean(means)),
    }


def _outcomes(
    pool: RolloutPool, judge: VerifierHandle, problems: pa.Table, config: Config, samples: int
) -> tuple[np.ndarray, float]:
    """Best outcome of each problem, and the mean of all samples."""
    request = RolloutRequest(
        samples,
        config.rollout.temperature,
        config.seed,
        (STREAM,),
        truncation=Truncation.of(config.rollout),
    )
    grades = cluster.resolve([judge.grade(pool.generate(problems, request), problems)])[0]
    outcomes = grades["outcome"].to_numpy().reshape(problems.num_rows, samples)
    return outcomes.max(axis=1), float(outcomes.mean())
