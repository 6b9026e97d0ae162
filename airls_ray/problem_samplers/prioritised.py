"""Problems that are often wrong more often: in proportion to 1 - success rate, new ones first.

Prioritised sampling of Kimi k1.5 (arXiv 2501.12599, section 2.3.4), with a success rate that half a success
in one visit more keeps off 0 and 1. That paper says nothing of problems that were never sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from airls_ray.data.problem_sampler import Candidate, draw, success_rate


def choose(candidates: Sequence[Candidate], count: int, rng: Random) -> list[int]:
    """Return `count` indices of `candidates`."""
    return draw(candidates, [1 - success_rate(one) for one in candidates], count, rng)


SAMPLER = choose
