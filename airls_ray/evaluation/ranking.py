"""How well scores rank: AUROC, correlation, and the accuracy of picking the best of k."""

from __future__ import annotations

from math import comb, nan

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

EQUAL_LOGS = 1e-12
"""Relative difference of log-scores that count as equal: sums of the same logarithms in another order."""


def auroc(scores: Array, labels: Array) -> float:
    """Probability that a right item scores higher than a wrong one, ties counting 1/2.

    Equals the Mann-Whitney statistic U / (n1 n0).

    Args:
        scores: [n], any monotone scale (infinities are fine).
        labels: [n], bool or 0/1, 1 is right.

    Returns:
        A number in [0, 1], or nan where only one class is there.

    Raises:
        ValueError: a score is nan, which has no rank.
    """
    right = np.asarray(labels, dtype=bool)
    values = np.asarray(scores)
    if np.isnan(values).any():
        raise ValueError(f"score {int(np.isnan(values).argmax())} is nan and cannot be ranked")
    positives, negatives = int(right.sum()), int((~right).sum())
    if not positives or not negatives:
        return nan
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = counts.cumsum()
    rank = last_rank - (counts - 1) / 2.0  # ties share the mean of their ranks (1-based)
    u = rank[inverse][right].sum() - positives * (positives + 1) / 2.0
    return float(u / (positives * negatives))


def auroc_within(scores: Array, labels: Array, groups: Array) -> float:
    """Mean over groups of the AUROC among the items of the group: what decides a choice among them.

    The AUROC over all items also counts pairs of different groups. A scorer that knows only which problems
    are hard has a high one there, and 1/2 here.

    Args:
        scores: [n], any monotone scale.
        labels: [n], bool or 0/1, 1 is right.
        groups: [n], problem of each item.

    Returns:
        A number in [0, 1]; groups of one class are left out, nan where all are.

    Raises:
        ValueError: a score is nan.
    """
    right = np.asarray(labels, dtype=bool)
    values = np.asarray(scores)
    if np.isnan(values).any():
        raise ValueError(f"score {int(np.isnan(values).argmax())} is nan and cannot be ranked")
    _, of = np.unique(np.asarray(groups), return_inverse=True)
    # Ties of one group share the mean of their places among all items, as in `auroc`; the places before the
    # group's first are taken off.
    order = np.lexsort((values, of))
    new = np.ones(len(of), dtype=bool)
    new[1:] = (values[order][1:] != values[order][:-1]) | (of[order][1:] != of[order][:-1])
    tie = np.cumsum(new) - 1
    counts = np.bincount(tie)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    sizes = np.bincount(of)
    first = np.cumsum(sizes) - sizes
    ranks = np.empty(len(of))
    ranks[order] = rank[tie] - first[of[order]]
    positives = np.bincount(of, weights=right)
    negatives = sizes - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return nan
    u = np.bincount(of, weights=ranks * right) - positives * (positives + 1) / 2.0
    return float((u[both] / (positives[both] * negatives[both])).mean())


def correlation(first: Array, second: Array) -> float:
    """Pearson correlation of two arrays [n]; nan where either is constant."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return nan
    a, b = a - a.mean(), b - b.mean()
    # Products of many probabilities are so small that their squares would be 0.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def tied_ranks(logs: Array) -> NDArray[np.int64]:
    """Return the rank of each log-score along the last axis, from 0; those parted by rounding share one.

    Not of scores themselves: near 1 these are so near each other and differ all the same.

    Args:
        logs: [..., N], none nan.
    """
    values = np.asarray(logs, dtype=np.float64)
    order = np.argsort(values, axis=-1)
    rising = np.take_along_axis(values, order, axis=-1)
    low, high = rising[..., :-1], rising[..., 1:]
    with np.errstate(invalid="ignore"):  # two infinities are equal
        apart = high - low
        parted = np.isinf(apart) | (apart > EQUAL_LOGS * np.minimum(np.abs(low), np.abs(high)))
    ranks = np.zeros(values.shape, dtype=np.int64)
    np.put_along_axis(ranks, order[..., 1:], np.cumsum(parted, axis=-1), axis=-1)
    return ranks


def best_of_k(scores: Array, correct: Array, k: int) -> NDArray[np.float64]:
    """Expected correctness of the highest-scored of k samples, without drawing any.

    The mean over all subsets of k of the N samples, in closed form: the best of a subset has rank
    value v with probability (C(n_le, k) - C(n_lt, k)) / C(N, k), where n_le and n_lt samples score at
    most and below v; equal scores share that probability. With `scores=correct` this is pass@k,
    1 - C(N - c, k) / C(N, k) (Chen et al. 2021, arXiv 2107.03374).

    Args:
        scores: [P, N], none nan.
        correct: [P, N], in [0, 1].
        k: between 1 and N.

    Returns:
        float64 [P].

    Raises:
        ValueError: k is out of range, shapes differ, or a score is nan.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if values.shape != right.shape or values.ndim != 2:
        raise ValueError(f"scores {values.shape} and correct {right.shape} must both be [problems, samples]")
    if np.isnan(values).any():
        raise ValueError("a score is nan and cannot be ranked")
    samples = values.shape[1]
    check_size(k, samples)
    below_or_equal = (values[:, None, :] <= values[:, :, None]).sum(axis=2)
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    share = np.array([comb(m, k) / comb(samples, k) for m in range(samples + 1)])
    chance = (share[below_or_equal] - share[below]) / (below_or_equal - below)
    expected: NDArray[np.float64] = (chance * right).sum(axis=1)
    return expected


def confidence_interval(
    values: Array, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of a mean over problems, by percentiles.

    Args:
        values: [P], one number a problem (its samples are not independent, so never one a sample).
        seed: of the resampling.
        draws: resamples.
        level: probability that the interval covers.

    Returns:
        Lower and upper bound; (nan, nan) without problems.
    """
    exact = np.asarray(values, dtype=np.float64)
    if not len(exact):
        return nan, nan
    picks = np.random.default_rng(seed).integers(0, len(exact), (draws, len(exact)))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(exact[picks].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


def check_size(k: int, samples: int) -> None:
    """Raise ValueError unless k of the samples can be chosen."""
    if not 1 <= k <= samples:
        raise ValueError(f"size must be between 1 and the number of samples ({samples}), but is {k}")
