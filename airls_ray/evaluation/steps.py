"""From the scores of steps to the score of a trace."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Aggregate = Literal["last", "min", "prod", "mean", "geometric_mean", "odds", "mean_odds", "sum"]
ScoreKind = Literal["probability", "token_mean", "step_mean"]
"""What a score of a step is. `probability`: of the step being right, or a score like one. `token_mean`: the
mean of a density, exp(mean log phi over the step's tokens), so that its log-score is tokens times its
logarithm. `step_mean`: the same where the objective itself knows the mean alone; its log-score is its
logarithm. Densities of whole steps and responses fall with their length; these means do not."""


MOST_ODDS = 36.0
"""Nats: log-odds of a score count up to here, above 0 and below. In float64 the sigmoid of 37 is 1, and that
of -700 is not 0: with two bounds a sure step on one side would outweigh as sure ones on the other."""


SCORE_ROUNDING = 1e-12
"""A score goes through its logarithm and back: one of just a threshold may come out below it by so much."""


def aggregate_steps(values: NDArray[np.generic], offsets: NDArray[np.integer], how: Aggregate) -> np.ndarray:
    """Reduce the step scores of each trace to one number.

    Exact zeros stay zeros: `prod` multiplies and does not go through logarithms.

    Args:
        values: [S], steps of all traces one after the other.
        offsets: [rows + 1], trace i has `values[offsets[i]:offsets[i + 1]]`.
        how: `last`, `min`, `prod`, `mean`, `geometric_mean`, `sum`, `odds` or `mean_odds`: sigmoid of the
            sum or the mean of the scores' log-odds, each within +- `MOST_ODDS`.

    Returns:
        float64 [rows].

    Raises:
        ValueError: a trace has no steps, the offsets do not span the values, or `how` is unknown.
    """
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(values):
        raise ValueError(f"offsets must go from 0 to the number of steps ({len(values)})")
    if (lengths < 1).any():
        raise ValueError(f"trace {int((lengths < 1).argmax())} has no steps, so it has no score")
    if not len(lengths):
        return np.zeros(0)
    exact, starts = np.asarray(values, dtype=np.float64), offsets[:-1]
    if how == "last":
        return np.asarray(exact[offsets[1:] - 1])
    if how == "min":
        return np.minimum.reduceat(exact, starts)
    if how == "prod":
        return np.multiply.reduceat(exact, starts)
    if how in ("mean", "sum"):
        total = np.add.reduceat(exact, starts)
        return total / lengths if how == "mean" else total
    if how in ("geometric_mean", "odds", "mean_odds"):
        return np.asarray(np.exp(aggregate_log_scores(log_scores(exact), offsets, how)))
    raise ValueError(
        f"how must be last, min, prod, mean, geometric_mean, odds, mean_odds or sum, but is {how!r}"
    )


def log_scores(scores: NDArray[np.generic], sizes: NDArray[np.integer] | None = None) -> np.ndarray:
    """Logarithms of step scores in [0, 1], each times its size: float64 [S]; -inf for a score of 0.

    Args:
        scores: [S].
        sizes: [S], how many factors a score is the mean of (`score_sizes`); None: 1 each.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(scores, dtype=np.float64))
    return np.asarray(logs if sizes is None else logs * sizes)


def score_sizes(kind: ScoreKind, tokens: NDArray[np.integer]) -> NDArray[np.integer] | None:
    """How many factors each step's score is the mean of: its tokens, or 1 each (None)."""
    return tokens if kind == "token_mean" else None


def aggregate_log_scores(
    logs: np.ndarray,
    offsets: NDArray[np.integer],
    how: Aggregate,
    tokens: NDArray[np.integer] | None = None,
) -> np.ndarray:
    """Logarithm of the aggregated scores, exact where the score itself would be 0: float64 [rows].

    What ranks responses and weighs votes: a response of 3,000 tokens at 0.3 nats has a score of exp(-900).

    Args:
        logs: [S], from `log_scores`, not above 0.
        offsets: [rows + 1], each row with at least one step.
        how: as for `aggregate_steps` (`sum` has no logarithm), or `mean_odds`: sigmoid of the mean over the
            tokens of the steps' log-odds. Those of `odds` are equal where their sums are above 745.
        tokens: [S], of each step: weights of `mean_odds`; None: the steps weigh alike.

    Raises:
        ValueError: `how` is unknown.
    """
    if not len(offsets) - 1:
        return np.zeros(0)
    starts = offsets[:-1]
    if how == "last":
        return np.asarray(logs[offsets[1:] - 1])
    if how == "min":
        return np.minimum.reduceat(logs, starts)
    if how == "prod":
        return np.add.reduceat(logs, starts)
    if how == "geometric_mean":
        return np.asarray(np.add.reduceat(logs, starts) / np.diff(offsets))
    if how == "mean":
        return np.asarray(np.logaddexp.reduceat(logs, starts) - np.log(np.diff(offsets)))
    if how in ("odds", "mean_odds"):
        with np.errstate(divide="ignore"):  # scores of exactly 0 and 1 in one response must not be nan
            odds = np.clip(logs - np.log(-np.expm1(logs)), -MOST_ODDS, MOST_ODDS)
        if how == "mean_odds":
            weights = np.ones(len(logs)) if tokens is None else tokens
            total = np.add.reduceat(weights * odds, starts) / np.add.reduceat(weights, starts)
        else:
            total = np.add.reduceat(odds, starts)
        return np.asarray(-np.logaddexp(0.0, -total))
    raise ValueError(f"how must be last, min, prod, mean, geometric_mean, odds or mean_odds, but is {how!r}")


def relative_weights(logs: np.ndarray) -> np.ndarray:
    """Weights of a vote from log-scores [..., N], as multiples of the largest: float64 in [0, 1].

    All 0 where every log-score is -inf.
    """
    highest = logs.max(axis=-1, keepdims=True)
    return np.asarray(np.exp(logs - np.where(np.isfinite(highest), highest, 0.0)))
