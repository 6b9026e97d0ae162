"""Exploration and exploitation of a round of self-training in one number (B-STaR, arXiv 2412.17256)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Counts = Sequence[tuple[int, int]]
"""Of each problem how many different responses a reward has selected, and how many of these are right."""
Setting = tuple[float, float]
"""Temperature of the sampling and threshold of the reward."""


def balance_score(counts: Counts, wished: int) -> float:
    """Return the mean over problems of min(n' / n*, 1) n' / n: enough right responses, and few wrong ones.

    As in the authors' program (`train_code/determine_hyper.py`), where n* is 8. A problem of which nothing is
    selected counts 0 here; there it is left out of the mean, so that a high threshold may win by one problem.

    Args:
        counts: (n, n') of each problem, 0 <= n' <= n; at least one problem.
        wished: n*, the right responses that are enough for a problem.

    Raises:
        ValueError: there is no problem, or `wished` is below 1.
    """
    if not counts or wished < 1:
        raise ValueError(f"{len(counts)} problems and {wished} wished responses: both must be 1 or more")
    shares = [min(right / wished, 1.0) * right / selected if selected else 0.0 for selected, right in counts]
    return sum(shares) / len(shares)


def best_setting(counts: Mapping[Setting, Counts], wished: int) -> tuple[Setting, float]:
    """Return the setting with the highest balance score, of equal ones the first, and the score.

    Args:
        counts: those of each setting; at least one setting.
        wished: n* of `balance_score`.
    """
    scores = {setting: balance_score(one, wished) for setting, one in counts.items()}
    best = max(scores, key=lambda setting: scores[setting])
    return best, scores[best]
