"""Votes that ask both how often an answer was given and how the PRM scores it (UnPRM, arXiv 2508.01773).

The authors' program does not hold them. The hybrid vote is after the paper's description, and what the PRM
then chooses is our choice: the highest score. The weighted sum, with its scaling, is as a later program that
follows the paper computes it (UCO-WRF).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.ranking import Array
from airls_ray.evaluation.voting import (
    EQUAL_VOTES,
    Answers,
    answer_codes,
    expected_vote,
    sample_subsets,
    vote_shares,
    winners_of,
)

Floats = NDArray[np.float64]


def best_shares(scores: Array) -> Floats:
    """Return the chance of every sample [N] to be chosen by its score: those of the highest share it."""
    highest = np.asarray(scores) == np.max(scores)
    return np.asarray(highest / highest.sum(), dtype=np.float64)


def hybrid_shares(answers: Sequence[str | None], scores: Array, share: float) -> Floats:
    """Return the chance of every sample to be chosen by UnPRM's Hybrid Majority Reward Vote: float64 [N].

    The majority's answer where more than `share` of all samples give it, else the highest score.

    Args:
        answers: canonical answers; None has no vote, and counts among all samples.
        scores: [N], in any unit.
        share: in [0, 1].
    """
    codes = answer_codes(answers)
    votes = np.bincount(codes[codes >= 0]).max() if (codes >= 0).any() else 0
    return vote_shares(answers) if votes > share * len(codes) else best_shares(scores)


def reward_frequency_shares(answers: Sequence[str | None], scores: Array, weight: float) -> Floats:
    """Return the chance of every sample to be chosen by UnPRM's Weighted Reward Frequency Vote: float64 [N].

    The answer with the largest  weight * reward + (1 - weight) * frequency , where reward is the mean score
    of its samples and frequency their number, each scaled over the answers to [0, 1] (1 where all are equal).

    Args:
        answers: canonical answers; None has no vote.
        scores: [N], in any unit: a factor or a constant more changes nothing.
        weight: of the reward, in [0, 1].

    Returns:
        All 0 where no sample has an answer; equal answers share the choice, and so do the samples of one.
    """
    codes = answer_codes(answers)
    if not (codes >= 0).any():
        return np.zeros(len(codes))
    one_hot = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
    values = _joint_values(np.ones((1, len(codes))), one_hot, np.asarray(scores, dtype=np.float64), weight)[0]
    winners = winners_of(values, np.ones(len(values), dtype=np.bool_))
    return np.asarray(one_hot @ (winners / winners.sum() / one_hot.sum(axis=0)), dtype=np.float64)


def joint_values(
    answers: Answers,
    correct: Array,
    scores: Array,
    sizes: Sequence[int],
    *,
    share: float = 0.5,
    weight: float = 0.5,
    draws: int = 512,
    seed: int = 0,
) -> dict[str, dict[int, Floats]]:
    """Return the accuracy on each problem by `hybrid` and `reward_frequency`, then size: float64 [P].

    The mean over subsets of so many samples, as in `evaluation.voting.best_of_n_values`.

    Args:
        answers: [P][N].
        correct: [P, N], in [0, 1].
        scores: [P, N], comparable within a problem.
        sizes: numbers of samples, each between 1 and N.
        share: of the hybrid vote.
        weight: of the reward.
        draws: most subsets; exact where there are no more, see `evaluation.voting.vote_curve`.
        seed: of the subsets.

    Raises:
        ValueError: a size is out of range.
    """
    right, values = np.asarray(correct, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    curves: dict[str, dict[int, Floats]] = {"hybrid": {}, "reward_frequency": {}}
    for k in sizes:
        chosen = sample_subsets(right.shape[1], k, draws, seed)
        curves["hybrid"][k], curves["reward_frequency"][k] = _means(
            answers, right, values, chosen, share, weight
        )
    return curves


def _means(
    answers: Answers,
    right: Floats,
    values: Floats,
    chosen: NDArray[np.bool_],
    share: float,
    weight: float,
) -> tuple[Floats, Floats]:
    """Mean correctness over some subsets by both votes: [P] each."""
    hybrid, joint = np.zeros(len(right)), np.zeros(len(right))
    for problem, given in enumerate(answers):
        codes = answer_codes(given)
        # Random subsets are of places: the samples take those in an order of their own.
        order = np.lexsort((right[problem], values[problem], codes))
        codes, one, mine = codes[order], right[problem][order], values[problem][order]
        best = _best_of_subsets(mine, one, chosen)
        hybrid[problem] = _hybrid(codes, one, best, chosen, share).mean()
        joint[problem] = _reward_frequency(codes, one, mine, chosen, weight).mean()
    return hybrid, joint


def _hybrid(
    codes: NDArray[np.int64], right: Floats, best: Floats, chosen: NDArray[np.bool_], share: float
) -> Floats:
    """Correctness in each subset [D]; `best`: of its highest score."""
    if not (codes >= 0).any():
        return best
    votes = (chosen.astype(np.float64) @ (codes[:, None] == np.arange(codes.max() + 1))).max(axis=1)
    clear = votes > share * chosen.sum(axis=1)
    return np.where(clear, expected_vote(codes, np.ones(len(codes)), right, chosen), best)


def _reward_frequency(
    codes: NDArray[np.int64], right: Floats, scores: Floats, chosen: NDArray[np.bool_], weight: float
) -> Floats:
    """Correctness in each subset [D]; 0 where none of it has an answer."""
    if not (codes >= 0).any():
        return np.zeros(len(chosen))
    one_hot = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
    mask = chosen.astype(np.float64)
    counts = mask @ one_hot
    winners = winners_of(_joint_values(mask, one_hot, scores, weight), counts > 0)
    mean = mask @ (one_hot * right[:, None]) / np.maximum(counts, 1.0)
    return np.asarray((winners * mean).sum(axis=1) / np.maximum(winners.sum(axis=1), 1))


def _joint_values(mask: Floats, one_hot: Floats, scores: Floats, weight: float) -> Floats:
    """Each answer's weight * reward + (1 - weight) * frequency in each subset: [D, A]; 0 where not given."""
    counts = mask @ one_hot
    reward = mask @ (one_hot * scores[:, None]) / np.maximum(counts, 1.0)
    given = counts > 0
    return np.where(given, weight * _scaled(reward, given) + (1.0 - weight) * _scaled(counts, given), 0.0)


def _scaled(values: Floats, given: NDArray[np.bool_]) -> Floats:
    """Values of the answers that are given, from 0 (least of a subset) to 1 (most); 1 where all are equal."""
    least = np.where(given, values, np.inf).min(axis=1, keepdims=True)
    most = np.where(given, values, -np.inf).max(axis=1, keepdims=True)
    # Means of equal scores may differ in their last digit, which would be scaled to 0 and 1.
    wide = np.isfinite(least) & (most - least > EQUAL_VOTES * np.abs(most))
    return np.where(wide, (values - least) / np.where(wide, most - least, 1.0), 1.0)


def _best_of_subsets(scores: Floats, right: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Mean correctness of the highest scores in each subset: [D]."""
    inside = np.where(chosen, scores, -np.inf)
    highest = chosen & (inside == inside.max(axis=1, keepdims=True))
    return np.asarray(highest @ right / highest.sum(axis=1), dtype=np.float64)
