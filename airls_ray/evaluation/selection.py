"""Choosing one among the stored solutions of each problem; problems may have different numbers of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from airls_ray.evaluation.ranking import auroc, auroc_within, confidence_interval, correlation
from airls_ray.evaluation.rollouts import list_column, step_tokens
from airls_ray.evaluation.steps import (
    Aggregate,
    ScoreKind,
    aggregate_log_scores,
    log_scores,
    relative_weights,
    score_sizes,
)
from airls_ray.evaluation.voting import best_of_n_values

Values = dict[str, NDArray[np.float64]]
"""By way of choosing: whether the chosen solution is right, for each problem: float64 [P]."""


def choose_by(
    rollouts: pa.Table, logs: NDArray[np.float64] | None, log_probs: NDArray[np.float64] | None = None
) -> Values:
    """Choose among all solutions of each problem in every way.

    Args:
        rollouts: STORED_ROLLOUTS.
        logs: [rows], log-scores of the PRM; None: without the two ways that use them.
        log_probs: [rows], of the policy that sampled, or None.

    Returns:
        `mean` (one at random), `oracle` (any is right), `majority` (only where some solution has an
        answer), `best_of_n` and `weighted` (by `logs`; the second is a vote) and `policy_log_prob`; equal
        scores share the choice. Problems stand in the same order in all of them.
    """
    codes = rollouts["problem_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    counts = np.diff([*starts, len(order)])
    correct = (rollouts["outcome"].to_numpy() > 0.5).astype(np.float64)
    answers = rollouts["answer"].to_pylist()
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for count in np.unique(counts).tolist():
        rows = order[starts[counts == count, None] + np.arange(count)]
        values = best_of_n_values(
            None if logs is None else logs[rows],
            correct[rows],
            [[answers[row] for row in problem] for problem in rows.tolist()],
            [count],
            log_probs=None if log_probs is None else log_probs[rows],
            weights=None if logs is None else relative_weights(logs[rows]),
        )
        for way, curve in values.items():
            parts.setdefault(way, []).append(curve[count])
    answered = any(answer is not None for answer in answers)
    votes = () if answered else ("majority", "weighted")
    return {way: np.concatenate(curves) for way, curves in parts.items() if way not in votes}


def with_intervals(values: Values, ways: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Return the share of right choices and its 95 % interval over problems: `way`, `way_low`, `way_high`."""
    figures: dict[str, float] = {}
    for way in ways:
        if way in values:
            low, high = confidence_interval(values[way], seed)
            figures |= {way: float(values[way].mean()), f"{way}_low": low, f"{way}_high": high}
    return figures


def measure_selection(
    rollouts: pa.Table,
    step_scores: NDArray[np.float64],
    aggregate: Aggregate,
    seed: int = 0,
    kind: ScoreKind = "probability",
) -> dict[str, float]:
    """Figures of a PRM on stored rollouts.

    Args:
        rollouts: STORED_ROLLOUTS.
        step_scores: [S], in [0, 1], the steps of all rows one after the other.
        aggregate: how a solution is scored by its steps.
        seed: of the intervals.
        kind: what the scores are.

    Returns:
        `best_of_n` and (with answers) `weighted`, each with its interval; `trace_auroc` against outcomes
        above 1/2, over all and `trace_auroc_within` problems; `length_correlation` with the number of steps.
        What is not defined is nan.
    """
    traces = trace_log_scores(rollouts, step_scores, aggregate, kind)
    steps = pc.list_value_length(rollouts["step_ends"]).to_numpy()
    right = rollouts["outcome"].to_numpy() > 0.5
    return with_intervals(choose_by(rollouts, traces), ("best_of_n", "weighted"), seed) | {
        "trace_auroc": auroc(traces, right),
        "trace_auroc_within": auroc_within(traces, right, rollouts["problem_id"].to_numpy()),
        "length_correlation": correlation(np.exp(traces), steps),
    }


def trace_log_scores(
    rollouts: pa.Table, step_scores: NDArray[np.float64], aggregate: Aggregate, kind: ScoreKind
) -> NDArray[np.float64]:
    """Log-score of each row [rows] from the scores of all steps [S]; see `evaluation.steps`."""
    _, offsets = list_column(rollouts["step_ends"])
    tokens = step_tokens(rollouts)
    logs = log_scores(step_scores, score_sizes(kind, tokens))
    return aggregate_log_scores(logs, offsets, aggregate, tokens)


def measure_controls(rollouts: pa.Table, seed: int = 0) -> dict[str, float]:
    """The same without a PRM: `mean`, `oracle`, `majority` and `policy_log_prob` (where known)."""
    values = choose_by(rollouts, None, _log_probs(rollouts))
    return with_intervals(values, ("mean", "majority", "policy_log_prob", "oracle"), seed)


def _log_probs(rollouts: pa.Table) -> NDArray[np.float64] | None:
    """Of whole responses [rows]; None where a row lacks them."""
    if rollouts["logprobs"].null_count:
        return None
    values, offsets = list_column(rollouts["logprobs"])
    return np.add.reduceat(values.astype(np.float64), offsets[:-1])


def count_problems(rollouts: pa.Table) -> int:
    """How many problems the rows are of."""
    return len(pc.unique(rollouts["problem_id"]))
