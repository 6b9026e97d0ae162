"""Answering only where one is sure: accuracy against the share of problems that are answered."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.steps import SCORE_ROUNDING

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the problems that summaries report."""


def vote_share(answer: str | None, answers: Sequence[str | None]) -> float:
    """Return the share of all responses, those without an answer included, that give `answer`; 0 for None."""
    return 0.0 if answer is None else answers.count(answer) / len(answers)


def is_sure(
    share: NDArray[np.float64], score: NDArray[np.float64], least_share: float, least_score: float
) -> NDArray[np.bool_]:
    """Return which answers are given: bool [P].

    Args:
        share: [P], of the votes.
        score: [P], of the chosen responses; below 0 where there is none.
        least_share: see `search.abstain`.
        least_score: the same.
    """
    return np.asarray((share >= least_share) & (score >= least_score - SCORE_ROUNDING))


def risk_curve(confidence: NDArray[np.float64], outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the risk of answering only the n problems of highest confidence, for n = 1 .. P: float64 [P].

    The risk is the mean of 1 - outcome (selective risk: Geifman and El-Yaniv 2017, arXiv 1705.08500).
    Problems of equal confidence come in any order: the expectation over all orders is returned.

    Args:
        confidence: [P], in any unit, infinities included.
        outcomes: [P], in [0, 1].

    Raises:
        ValueError: shapes differ, or a confidence is nan.
    """
    if confidence.shape != outcomes.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and outcomes {outcomes.shape} must be [problems]")
    if np.isnan(confidence).any():
        raise ValueError(f"confidence {int(np.isnan(confidence).argmax())} is nan and cannot be ranked")
    order = np.argsort(-confidence, kind="stable")
    risks = 1.0 - outcomes[order]
    _, first, sizes = np.unique(-confidence[order], return_index=True, return_counts=True)
    ties = np.add.reduceat(risks, first) / sizes if len(risks) else risks
    return np.asarray(np.cumsum(np.repeat(ties, sizes)) / np.arange(1, len(risks) + 1))


def aurc(confidence: NDArray[np.float64], outcomes: NDArray[np.float64]) -> float:
    """Return the area under the risk-coverage curve: the mean of `risk_curve`; nan without problems.

    After Geifman et al. 2019 (arXiv 1805.08206). 0 is perfect; a confidence that says nothing has the
    mean risk of all problems.
    """
    return _area(risk_curve(confidence, outcomes))


def _area(risks: NDArray[np.float64]) -> float:
    return float(risks.mean()) if len(risks) else nan


def measure_abstention(confidence: NDArray[np.float64], outcomes: NDArray[np.float64]) -> dict[str, Any]:
    """Return `aurc` and `accuracy` of the most confident answers, by the share of problems ("0.1" to "1.0",
    rounded up to whole problems)."""
    risks = risk_curve(confidence, outcomes)
    counts = {share: ceil(share * len(risks)) for share in COVERAGES}
    return {
        "aurc": _area(risks),
        "accuracy": {
            f"{share:.1f}": float(1.0 - risks[count - 1]) if count else nan for share, count in counts.items()
        },
    }
