"""Votes over answers, and accuracy against the number of samples for every way of choosing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.ranking import Array, best_of_k, check_size

Answers = Sequence[Sequence[str | None]]


def vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> int | None:
    """Return the index of the first sample that gives the winning answer.

    Args:
        answers: canonical answers; None (no valid answer) has no vote.
        weights: not negative; None gives every sample the same.

    Returns:
        None where no sample has an answer. Of answers with equal votes the first seen wins.
    """
    codes = _codes(answers)
    heaviness = np.ones(len(codes)) if weights is None else _valid_weights(np.asarray(weights))
    if not (codes >= 0).any():
        return None
    return int(_winners(codes, heaviness, np.ones((1, len(codes)), dtype=bool))[0])


def vote_curve(
    answers: Answers, correct: Array, weights: Array | None, k: int, *, draws: int = 512, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean correctness of the voted answer over subsets of k samples.

    Exact over all subsets where there are at most `draws` of them (so always at k = N), else the
    mean over `draws` random ones, the same for every problem.

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
    chosen = _subsets(right.shape[1], k, draws, seed)
    means = np.zeros(len(right))
    for problem, given in enumerate(answers):
        codes = _codes(given)
        winners = _winners(codes, heaviness[problem], chosen)
        means[problem] = np.where(codes[winners] >= 0, right[problem][winners], 0.0).mean()
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
        weights: [P, N] of the votes, where `scores` are none (such as log-scores); None: the scores.
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
        values["best_of_n"] = {k: best_of_k(scores, right, k) for k in sizes}
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


def _codes(answers: Sequence[str | None]) -> NDArray[np.int64]:
    """Number the answers in the order in which they are first seen; -1 for none: int64 [N]."""
    seen: dict[str, int] = {}
    return np.array([-1 if a is None else seen.setdefault(a, len(seen)) for a in answers], dtype=np.int64)


def _winners(
    codes: NDArray[np.int64], weights: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Index of the first sample with the winning answer in each subset (`chosen`, [D, N]): [D].

    Where a subset has no valid answer, the index of a sample without one.
    """
    valid = codes >= 0
    if not valid.any():
        return np.zeros(len(chosen), dtype=np.int64)
    one_hot = (codes[:, None] == np.arange(codes.max() + 1)) * weights[:, None]
    votes = (chosen @ one_hot)[:, codes]
    # argmax over samples takes the first of equal votes, which is the first seen of tied answers.
    votes = np.where(chosen & valid, votes, -1.0)
    picked = votes.argmax(axis=1)
    none_valid = ~(chosen & valid).any(axis=1)
    return np.where(none_valid, (~valid).argmax(), picked)


def _subsets(samples: int, k: int, draws: int, seed: int) -> NDArray[np.bool_]:
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
