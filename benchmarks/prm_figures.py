"""Figures of `prm_baselines.py`: choosing among samples by scores, and without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from airls_ray.config.schema import Config

Figures = dict[str, float]


def measure(engine: Any, config: Config, table: pa.Table, aggregates: Sequence[Any]) -> dict[str, Figures]:
    """Figures of a PRM on graded samples, by the way to read its steps (see `choosing`)."""
    from airls_ray.evaluation.rollouts import step_tokens
    from airls_ray.evaluation.selection import trace_log_scores
    from airls_ray.evaluation.steps import log_scores, score_sizes
    from airls_ray.prm.offline import SelectionFigures

    kind = config.prm.score_kind
    scores = SelectionFigures(engine, config, table, 0).step_scores()
    steps = log_scores(scores, score_sizes(kind, step_tokens(table)))
    return {how: choosing(table, trace_log_scores(table, scores, how, kind), steps) for how in aggregates}


def choosing(table: pa.Table, traces: NDArray[np.float64], steps: NDArray[np.float64]) -> Figures:
    """Figures of log-scores of responses and of steps: Best-of-N, its interval, AUROCs over all and within
    problems."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from airls_ray.evaluation.ranking import auroc, auroc_within, confidence_interval
    from airls_ray.evaluation.rollouts import list_column
    from airls_ray.evaluation.selection import choose_by

    right = table["outcome"].to_numpy() > 0.5
    problems = table["problem_id"].to_numpy(zero_copy_only=False)
    _, offsets = list_column(table["step_ends"])
    truth = pc.list_flatten(table["step_truth"].combine_chunks()).to_numpy(zero_copy_only=False)
    of_steps = np.repeat(problems, np.diff(offsets))
    unanswered = table.append_column("answer", pa.nulls(table.num_rows, pa.string()))
    # By name: the interval is the same in whatever order the problems come.
    names = pc.unique(table["problem_id"]).to_numpy(zero_copy_only=False)
    chosen = choose_by(unanswered, traces)["best_of_n"][np.argsort(names)]
    low, high = confidence_interval(chosen)
    return {
        "best_of_n": float(chosen.mean()),
        "low": low,
        "high": high,
        "auroc": auroc(traces, right),
        "auroc_within": auroc_within(traces, right, problems),
        "step_auroc": auroc(steps, truth.astype(bool)),
        "step_auroc_within": auroc_within(steps, truth.astype(bool), of_steps),
    }


def controls(table: pa.Table) -> dict[str, Any]:
    """The policy's log-probability, one sample, any right one."""
    import numpy as np

    from airls_ray.evaluation.ranking import confidence_interval
    from airls_ray.evaluation.rollouts import list_column, step_sums

    tokens, _ = list_column(table["logprobs"])
    steps, offsets = step_sums(table, tokens)
    right = table["outcome"].to_numpy() > 0.5
    problems = np.unique(table["problem_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    shares = np.bincount(problems, right) / np.bincount(problems)
    low, high = confidence_interval(shares)
    return {
        "log_prob": choosing(table, np.add.reduceat(steps, offsets[:-1]), steps),
        "one_sample": {"best_of_n": float(shares.mean()), "low": low, "high": high},
        "any_right": {"best_of_n": float((shares > 0).mean())},
    }
