"""Accuracy of stored samples: no engine, no model, only their scores and verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from airls_ray.data.sample_files import Sample
from airls_ray.evaluation.prm_metrics.best_of_n import (
    SampleScores,
    powers_of_two,
    sample_values,
    summarise_values,
)
from airls_ray.progress import Progress, QuietProgress


def measure_samples(
    problems: dict[str, list[Sample]], seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Return `problems`, `samples` (of each) and `curves`; see `summarise_values`.

    Where problems have different numbers of samples, the first ones of each count, as many as the fewest. The
    votes are left out where no sample has an answer, the log-probability where one lacks it.
    """
    say = (progress or QuietProgress()).say
    counts = [len(samples) for samples in problems.values()]
    fewest = min(counts)
    if max(counts) > fewest:
        say(f"problems have {fewest} to {max(counts)} samples: the first {fewest} of each are used")
    kept = [samples[:fewest] for samples in problems.values()]
    flat = [sample for samples in kept for sample in samples]
    answered = any(sample.answer is not None for sample in flat)
    if not answered:
        say("no sample has an answer, so there are no votes")
    lengths = [len(sample.scores) for sample in flat]
    scores = SampleScores(
        np.array([score for sample in flat for score in sample.scores], dtype=np.float64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    log_probs = None
    if all(sample.log_prob is not None for sample in flat):
        log_probs = np.array([[sample.log_prob for sample in samples] for samples in kept], dtype=np.float64)
    values = sample_values(
        scores,
        np.array([[sample.correct for sample in samples] for samples in kept]),
        [[sample.answer for sample in samples] for samples in kept] if answered else None,
        powers_of_two(fewest),
        log_probs=log_probs,
        seed=seed,
    )
    return {"problems": len(kept), "samples": fewest, "curves": summarise_values(values, seed)}
