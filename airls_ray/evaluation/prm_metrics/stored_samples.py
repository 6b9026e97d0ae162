"""Accuracy of stored samples: no engine, no model, only their scores and verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from airls_ray.console.progress import Progress, QuietProgress
from airls_ray.data.sample_files import Sample
from airls_ray.evaluation.prm_metrics.best_of_n import (
    SampleScores,
    Values,
    powers_of_two,
    sample_values,
    summarise_values,
)


def measure_samples(
    problems: dict[str, list[Sample]], seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Return `problems`, `samples` (fewest of a problem) and `curves`; see `summarise_values`.

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
    return {"problems": len(problems), "samples": fewest, "curves": summarise_values(values, seed)}


def _measure(
    group: list[list[Sample]], sizes: list[int], *, answered: bool, with_log_probs: bool, seed: int
) -> Values:
    """Measure problems that have equally many samples."""
    flat = [sample for samples in group for sample in samples]
    scores = SampleScores(
        np.array([score for sample in flat for score in sample.scores], dtype=np.float64),
        np.concatenate([[0], np.cumsum([len(sample.scores) for sample in flat])]).astype(np.int64),
    )
    log_probs = None
    if with_log_probs:
        log_probs = np.array([[sample.log_prob for sample in samples] for samples in group], dtype=np.float64)
    return sample_values(
        scores,
        np.array([[sample.correct for sample in samples] for samples in group]),
        [[sample.answer for sample in samples] for samples in group] if answered else None,
        sizes,
        log_probs=log_probs,
        seed=seed,
    )
