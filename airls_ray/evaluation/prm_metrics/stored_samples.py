"""Accuracy of stored samples: no engine, no model, only their scores and verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from airls_ray.console.progress import Progress, QuietProgress
from airls_ray.data.sample_files import Sample
from airls_ray.evaluation.abstention import measure_abstention
from airls_ray.evaluation.joint_votes import best_shares
from airls_ray.evaluation.prm_metrics.best_of_n import (
    AGGREGATES,
    SampleScores,
    Values,
    aggregate_samples,
    powers_of_two,
    sample_values,
    summarise_values,
)
from airls_ray.evaluation.voting import vote_shares


def measure_samples(
    problems: dict[str, list[Sample]], seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Return `problems`, `samples` (fewest of a problem), `curves` (see `summarise_values`) and `abstention`.

    Where problems have different numbers of samples, the curves end at the fewest, and every problem's
    figures are those of all its samples. The votes are left out where no sample has an answer,
    the log-probability where one lacks it.
    """
    say = (progress or QuietProgress()).say
    by_count: dict[int, list[list[Sample]]] = {}
    for samples in problems.values():
        by_count.setdefault(len(samples), []).append(samples)
    fewest = min(by_count)
    if len(by_count) > 1:
        say(f"problems have {fewest} to {max(by_count)} samples: the curves end at {fewest}")
    flat = [sample for samples in problems.values() for sample in samples]
    answered = any(sample.answer is not None for sample in flat)
    if not answered:
        say("no sample has an answer, so there are no votes")
    measured = [
        _measure(
            group,
            powers_of_two(fewest),
            answered=answered,
            with_log_probs=all(sample.log_prob is not None for sample in flat),
            seed=seed,
        )
        for group in by_count.values()
    ]
    values: Values = {
        way: {k: np.concatenate([one[way][k] for one in measured]) for k in curve}
        for way, curve in measured[0].items()
    }
    return {
        "problems": len(problems),
        "samples": fewest,
        "curves": summarise_values(values, seed),
        "abstention": _abstention(list(problems.values()), answered),
    }


def _abstention(problems: list[list[Sample]], answered: bool) -> dict[str, dict[str, Any]]:
    """What it is worth to answer only where one is sure (`evaluation.abstention`), by way of choosing among
    all samples of a problem: sure by the share of the votes, or by the highest score."""
    right = [np.array([sample.correct for sample in samples]) for samples in problems]
    measured = {}
    if answered:
        answers = [[sample.answer for sample in samples] for samples in problems]
        shares = [vote_shares(one) for one in answers]
        most = [max((one.count(name) for name in one if name is not None), default=0) for one in answers]
        measured["majority"] = measure_abstention(
            np.array([count / len(one) for count, one in zip(most, answers, strict=True)]),
            np.array([float(share @ one) for share, one in zip(shares, right, strict=True)]),
        )
    for how in AGGREGATES:
        scores = [aggregate_samples(_step_scores(samples), how) for samples in problems]
        measured[f"best/{how}"] = measure_abstention(
            np.array([one.max() for one in scores]),
            np.array([float(best_shares(one) @ other) for one, other in zip(scores, right, strict=True)]),
        )
    return measured


def _step_scores(samples: list[Sample]) -> SampleScores:
    return SampleScores(
        np.array([score for sample in samples for score in sample.scores], dtype=np.float64),
        np.concatenate([[0], np.cumsum([len(sample.scores) for sample in samples])]).astype(np.int64),
    )


def _measure(
    group: list[list[Sample]], sizes: list[int], *, answered: bool, with_log_probs: bool, seed: int
) -> Values:
    """Measure problems that have equally many samples."""
    flat = [sample for samples in group for sample in samples]
    log_probs = None
    if with_log_probs:
        log_probs = np.array([[sample.log_prob for sample in samples] for samples in group], dtype=np.float64)
    return sample_values(
        _step_scores(flat),
        np.array([[sample.correct for sample in samples] for samples in group]),
        [[sample.answer for sample in samples] for samples in group] if answered else None,
        sizes,
        log_probs=log_probs,
        seed=seed,
    )
