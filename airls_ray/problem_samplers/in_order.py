"""Every problem in its turn, as the stream has them."""

from __future__ import annotations


class InOrder:
    """Takes what comes: there is nothing to choose from."""

    candidates_per_problem = 1

    def choose(self, count: int) -> list[int]:
        """Return the first `count`, which are all."""
        return list(range(count))


SAMPLER = InOrder
