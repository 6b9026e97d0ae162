"""Problems that are sometimes right more often: in proportion to p(1 - p) of their rate, new ones first.

The variance of success, by which "Learning to Reason at the Frontier of Learnability" (arXiv 2502.12272)
chooses problems. [C] They are drawn in proportion to it here, and half a success in one visit more keeps p
off 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from airls_ray.data.problem_sampler import Candidate, draw, success_rate


def choose(candidates: Sequence[Candidate], count: int, rng: Random) -> list[int]:
    """Return `count` indices of `candidates`."""
    rates = [success_rate(one) for one in candidates]
    return draw(candidates, [rate * (1 - rate) for rate in rates], count, rng)


SAMPLER = choose
