"""Accuracy against the number of samples, for every aggregation of step scores and every answer rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.joint_votes import joint_values
from airls_ray.evaluation.ranking import Array, best_of_k, confidence_interval
from airls_ray.evaluation.steps import Aggregate, aggregate_steps
from airls_ray.evaluation.voting import Answers, best_of_n_values, vote_curve

AGGREGATES: tuple[Aggregate, ...] = ("last", "min", "prod", "mean")

Values = dict[str, dict[int, NDArray[np.float64]]]
"""By way of choosing and number of samples: accuracy on each problem, float64 [P]."""


@dataclass(frozen=True)
class SampleScores:
    """Step scores of P x N samples, problem after problem."""

    scores: NDArray[np.float64]
    """[S], in [0, 1]."""
    offsets: NDArray[np.int64]
    """[P x N + 1]; a sample may have no steps."""


def sample_values(
    samples: SampleScores,
    correct: Array,
    answers: Answers | None,
    sizes: Sequence[int],
    *,
    log_probs: Array | None = None,
    aggregates: Sequence[Aggregate] = AGGREGATES,
    draws: int = 512,
    seed: int = 0,
) -> Values:
    """Return the accuracy on each problem of every way of choosing among k samples.

    Unbiased for every k from the same N samples: the mean over subsets of k (`evaluation.voting`).

    Args:
        samples: step scores.
        correct: [P, N], in [0, 1].
        answers: [P][N] canonical answers, None for a sample without one; None: without the votes.
        sizes: numbers of samples, each between 1 and N.
        log_probs: [P, N] of the policy, or None: then without `policy_log_prob`.
        aggregates: how step scores become the score of a sample.
        draws: most subsets of a vote.
        seed: of the draws.

    Returns:
        `mean` (one sample), `oracle` (pass@k, the upper bound), `majority`, `policy_log_prob`, and by
        aggregation `best/<how>`, `weighted/<how>`, `hybrid/<how>` and `reward_frequency/<how>`.

    Raises:
        ValueError: a size is out of range, shapes differ, or a score is nan or negative.
    """
    right = np.asarray(correct, dtype=np.float64)
    known = answers if answers is not None else [[None] * right.shape[1]] * len(right)
    values = best_of_n_values(None, right, known, sizes, log_probs=log_probs, draws=draws, seed=seed)
    if answers is None:
        del values["majority"]
    for how in aggregates:
        scores = aggregate_samples(samples, how).reshape(right.shape)
        values[f"best/{how}"] = {k: best_of_k(scores, right, k) for k in sizes}
        if answers is not None:
            values[f"weighted/{how}"] = {
                k: vote_curve(answers, right, scores, k, draws=draws, seed=seed) for k in sizes
            }
            for way, curve in joint_values(answers, right, scores, sizes, draws=draws, seed=seed).items():
                values[f"{way}/{how}"] = curve
    return values


def aggregate_samples(samples: SampleScores, how: Aggregate) -> NDArray[np.float64]:
    """Reduce step scores to one score a sample [P x N]; 0, the lowest, for a sample without steps."""
    lengths = np.diff(samples.offsets)
    result = np.zeros(len(lengths))
    kept = lengths > 0
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    result[kept] = aggregate_steps(samples.scores, offsets, how)
    return result


def summarise_values(values: Values, seed: int = 0) -> dict[str, dict[int, dict[str, float]]]:
    """Return accuracy with its 95 % interval over problems: way of choosing, then k, then
    `accuracy`, `low`, `high`."""
    summary: dict[str, dict[int, dict[str, float]]] = {}
    for way, curve in values.items():
        summary[way] = {}
        for k, accuracies in curve.items():
            low, high = confidence_interval(accuracies, seed)
            summary[way][k] = {"accuracy": float(accuracies.mean()), "low": low, "high": high}
    return summary


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to `most`."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]
