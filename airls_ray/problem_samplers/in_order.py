"""Every problem in its turn, as the stream has them."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.data.problem_sampler import Candidate


class InOrder:
    """Takes what comes: there is nothing to choose from."""

    candidates_per_problem = 1

    def choose(self, candidates: Sequence[Candidate], count: int) -> list[int]:
        """Return the first `count`, or all where the stream has ended."""
        return list(range(min(count, len(candidates))))


SAMPLER = InOrder
