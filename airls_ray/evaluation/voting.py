"""Votes over answers, and accuracy against the number of samples for every way of choosing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.ranking import Array, best_of_k, check_size, tied_ranks

Answers = Sequence[Sequence[str | None]]

EQUAL_VOTES = 1e-12
"""Relative difference of votes that count as equal."""


def vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> int | None:
    """Return the index of the first sample that gives the winning answer.

    Args:
        answers: canonical answers; None (no valid answer) has no vote.
        weights: not negative; None gives every sample the same.

    Returns:
        None where no sample has an answer. Of answers with equal votes the first seen wins: this is for
        giving one answer; figures are made with `vote_shares`, which no order changes.
    """
    chances = vote_shares(answers, weights)
    return int(np.flatnonzero(chances)[0]) if chances.any() else None


def vote_shares(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Return the chance of every sample to be chosen by a vote: float64 [N], with sum 1.

    Answers with equal votes share it, and so do the samples of an answer. All are 0 where no sample has an
    answer.
    """
    codes = answer_codes(answers)
    if not (codes >= 0).any():
        return np.zeros(len(codes))
    heaviness = np.ones(len(codes)) if weights is None else _valid_weights(np.asarray(weights))
    one_hot = codes[:, None] == np.arange(codes.max() + 1)
    winners = winners_of(heaviness @ one_hot, one_hot.any(axis=0))
    shares: NDArray[np.float64] = one_hot @ (winners / winners.sum() / one_hot.sum(axis=0))
    return shares


def vote_curve(
    answers: Answers, correct: Array, weights: Array | None, k: int, *, draws: int = 512, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean correctness of the voted answer over subsets of k samples.

    Exact over all subsets where there are at most `draws` of them (so always at k = N), else the
    mean over `draws` random ones, the same for every problem. Answers with equal votes count their share:
    the order of the samples changes nothing.

    Args:
        answers: [P][N].
        correct: [P, N], in [0, 1]; a vote without any valid answer is wrong.
        weights: [P, N], not negative, or None for a majority.
        k: between 1 and N.
        draws: most subsets.
        seed: of the draws.

    Returns:
        float64 [P].

    Raises:
        ValueError: k is out of range, or a weight is negative or not finite.
    """
    right = np.asarray(correct, dtype=np.float64)
    heaviness = np.ones(right.shape) if weights is None else _valid_weights(np.asarray(weights))
    chosen = sample_subsets(right.shape[1], k, draws, seed)
    means = np.zeros(len(right))
    for problem, given in enumerate(answers):
        codes = answer_codes(given)
        if not (codes >= 0).any():
            continue
        # Random subsets are of places: the samples take those in an order of their own, not that of the rows.
        order = np.lexsort((right[problem], heaviness[problem], codes))
        values = expected_vote(codes[order], heaviness[problem][order], right[problem][order], chosen)
        means[problem] = values.mean()
    return means


def best_of_n_values(
    scores: Array | None,
    correct: Array,
    answers: Answers,
    sizes: Sequence[int],
    *,
    log_probs: Array | None = None,
    weights: Array | None = None,
    draws: int = 512,
    seed: int = 0,
) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Return the accuracy on each problem: method, then size, then float64 [P].

    Unbiased for every size from the same N samples: `mean` (one sample), `oracle` (pass@k),
    `best_of_n` (highest score) and `policy_log_prob` (highest log-probability) in closed form,
    `majority` and `weighted` (votes weighted by the score) as in `vote_curve`.

    Args:
        scores: [P, N] of the PRM, not negative unless there are `weights`, or None: then without `best_of_n`
            and `weighted`.
        correct: [P, N], in [0, 1].
        answers: [P][N] canonical answers, None where a sample has none.
        sizes: numbers of samples, each between 1 and N.
        log_probs: [P, N] of the policy, or None: then without `policy_log_prob`.
        weights: [P, N] of the votes, where `scores` are log-scores; None: the scores.
        draws: most subsets of a vote.
        seed: of the draws.

    Raises:
        ValueError: a size is out of range, shapes differ, or a score is nan or a weight negative.
    """
    right = np.asarray(correct, dtype=np.float64)
    _check_shapes(right, answers, {"scores": scores, "log_probs": log_probs, "weights": weights})
    sample = right.mean(axis=1)
    values: dict[str, dict[int, NDArray[np.float64]]] = {
        "mean": {k: sample for k in sizes},
        "oracle": {k: best_of_k(right, right, k) for k in sizes},
        "majority": {k: vote_curve(answers, right, None, k, draws=draws, seed=seed) for k in sizes},
    }
    if scores is not None:
        ranked = scores if weights is None else tied_ranks(scores)
        values["best_of_n"] = {k: best_of_k(ranked, right, k) for k in sizes}
        heavy = scores if weights is None else weights
        values["weighted"] = {k: vote_curve(answers, right, heavy, k, draws=draws, seed=seed) for k in sizes}
    if log_probs is not None:
        values["policy_log_prob"] = {k: best_of_k(log_probs, right, k) for k in sizes}
    return values


def best_of_n_curve(
    scores: Array | None,
    correct: Array,
    answers: Answers,
    sizes: Sequence[int],
    *,
    log_probs: Array | None = None,
    weights: Array | None = None,
    draws: int = 512,
    seed: int = 0,
) -> dict[str, dict[int, float]]:
    """Return the mean of `best_of_n_values` over problems: method, then size, then accuracy."""
    values = best_of_n_values(
        scores, correct, answers, sizes, log_probs=log_probs, weights=weights, draws=draws, seed=seed
    )
    return {name: {k: float(v.mean()) for k, v in curve.items()} for name, curve in values.items()}


def answer_codes(answers: Sequence[str | None]) -> NDArray[np.int64]:
    """Number the answers in the order of their names; -1 for none: int64 [N]."""
    numbers = {name: number for number, name in enumerate(sorted({a for a in answers if a is not None}))}
    return np.array([-1 if a is None else numbers[a] for a in answers], dtype=np.int64)


def expected_vote(
    codes: NDArray[np.int64],
    weights: NDArray[np.float64],
    right: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Correctness of the winning answer in each subset (`chosen`, [D, N]), the mean of tied ones: [D]."""
    one_hot = codes[:, None] == np.arange(codes.max() + 1)
    counts = chosen.astype(np.float64) @ one_hot
    winners = winners_of(chosen @ (one_hot * weights[:, None]), counts > 0)
    mean = chosen @ (one_hot * right[:, None]) / np.maximum(counts, 1.0)
    ties = winners.sum(axis=1)
    values: NDArray[np.float64] = (winners * mean).sum(axis=1) / np.maximum(ties, 1)
    return values


def winners_of(votes: NDArray[np.float64], given: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which answers (last axis) have the most votes among those that are `given`."""
    counted = np.where(given, votes, -1.0)
    most = counted.max(axis=-1, keepdims=True)
    # The same weights in another order have another sum in its last digits.
    return given & (counted >= most - EQUAL_VOTES * np.abs(most))


def sample_subsets(samples: int, k: int, draws: int, seed: int) -> NDArray[np.bool_]:
    """Subsets of k samples as masks [D, N]: all of them where there are at most `draws`."""
    check_size(k, samples)
    if comb(samples, k) <= draws:
        picks = np.array(list(combinations(range(samples), k)))
    else:
        keys = np.random.default_rng(seed).random((draws, samples))
        picks = keys.argpartition(k - 1, axis=1)[:, :k]
    chosen = np.zeros((len(picks), samples), dtype=bool)
    np.put_along_axis(chosen, picks, True, axis=1)
    return chosen


def _valid_weights(weights: Array) -> NDArray[np.float64]:
    exact = weights.astype(np.float64)
    if not np.isfinite(exact).all() or (exact < 0).any():
        raise ValueError(
            "a weighted vote needs finite weights that are not negative, such as scores in [0, 1]"
        )
    return exact


def _check_shapes(correct: NDArray[np.float64], answers: Answers, others: dict[str, Array | None]) -> None:
    if correct.ndim != 2 or [len(row) for row in answers] != [correct.shape[1]] * len(correct):
        raise ValueError(f"answers must have the shape of correct, {correct.shape}")
    for name, values in others.items():
        if values is not None and values.shape != correct.shape:
            raise ValueError(
                f"{name} must have the shape of correct, {correct.shape}, but has {values.shape}"
            )
