"""When a vote is decided: how sure it is that more samples would not change the winner."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import Literal

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import betainc, gammainc, gammaincinv, gammaln

Criterion = Literal["beta", "dirichlet"]
"""`beta`: of the two most frequent answers alone; `dirichlet`: of all that were seen."""

_TAIL, _NODES = 1e-12, 200
"""What is left out at each end of the integral, and how many points it is a sum over."""


def chance_of_lead(counts: Sequence[int], criterion: Criterion = "beta") -> float:
    """Return the posterior probability that the answer with the most votes is the most probable one.

    Adaptive consistency (Aggarwal et al. 2023, arXiv 2305.11860) after the authors' program: all divisions
    of probability among the answers are equally likely before the first vote.

    `beta`: P(p > 1/2) of the first of two answers with v1 and v2 votes, p ~ Beta(v1 + 1, v2 + 1).
    `dirichlet`: P(p1 is the largest), p ~ Dirichlet(v + 1); equal to `beta` for two answers, and taken as it
    for one. (The program samples this integral, of the five most frequent answers. Here it is one of one
    variable: Dirichlet shares are independent gamma variables over their sum, so it is the chance that the
    first of these is the largest.)

    Args:
        counts: votes of each answer, at least 1 each, in any order.
        criterion: see above.

    Returns:
        A number in (0, 1); 0 without votes.

    Raises:
        ValueError: a count is below 1.
    """
    if any(count < 1 for count in counts):
        raise ValueError(f"votes are counted from 1, but are {list(counts)}")
    if not counts:
        return 0.0
    first, *others = sorted(counts, reverse=True)
    if criterion == "beta" or len(others) < 2:
        return float(betainc((others or [0])[0] + 1, first + 1, 0.5))
    return _first_of_gammas(first + 1, np.array(others) + 1)


def fewest_votes(threshold: float) -> int:
    """Return how many equal votes reach a threshold in [0, 1) without any other: P = 1 - 2^-(v + 1)."""
    return max(1, ceil(-log2(1.0 - threshold)) - 1)


def _first_of_gammas(first: int, others: np.ndarray) -> float:
    """P(X > all Y), X ~ Gamma(first), Y ~ Gamma(others), independent: the mean over X of their common CDF."""
    low, high = gammaincinv(first, [_TAIL, 1.0 - _TAIL])
    places, weights = leggauss(_NODES)
    x = low + (high - low) * (places + 1.0) / 2.0
    density = np.exp((first - 1.0) * np.log(x) - x - gammaln(first))
    below = gammainc(others[:, None], x).prod(axis=0)
    return float((high - low) / 2.0 * (weights * density * below).sum())
