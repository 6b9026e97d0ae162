"""The rollout workers as one: a share of the groups each, every group delivered exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from actors import cluster
from actors.rollout_worker import RolloutRequest
from airls_ray.errors import RunError


class RolloutPool:
    """Lives in the driver and holds references only."""

    def __init__(self, workers: Sequence[Any], deadline_seconds: float) -> None:
        """`workers`: started actors; `deadline_seconds`: longest time for one worker's share."""
        if not workers:
            raise ValueError("a rollout pool needs at least one worker")
        self._workers = list(workers)
        self._deadline = deadline_seconds
        self._weights: Any = None

    @property
    def workers(self) -> list[Any]:
        """The actors that are alive, as far as is known."""
        return list(self._workers)

    def generate(self, problems: pa.Table, request: RolloutRequest) -> list[Any]:
        """Sample rollouts for all problems; returns one table reference per share, in group order.

        A group is sampled by one engine (shared prefix cache). A share whose worker dies goes to
        another one; its seeds make it the same rollouts.

        Raises:
            RunError: no worker is left, or a share passed its deadline.
        """

        def submit(worker: Any, share: range) -> Any:
            groups = [request.first_group + row for row in share]
            return worker.generate.remote(problems.slice(share.start, len(share)), groups, request)

        return self._in_shares(_shares(problems.num_rows, len(self._workers)), submit)

    def complete(self, prefixes: pa.Table, request: RolloutRequest) -> list[Any]:
        """Continue all prefixes (schema PREFIXES); one table (COMPLETIONS) per share, in prefix order.

        Each worker continues its share in one batch; `request.first_group` numbers the first prefix.

        Raises:
            RunError: no worker is left, or a share passed its deadline.
        """

        def submit(worker: Any, share: range) -> Any:
            numbers = [request.first_group + row for row in share]
            return worker.complete.remote(prefixes.slice(share.start, len(share)), numbers, request)

        return self._in_shares(_shares(prefixes.num_rows, len(self._workers)), submit)

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> list[tuple[list[int], Any]]:
        """Continue the prefixes of a search (schema EXPANSIONS).

        Args:
            expansions: what is wanted.
            owners: for each row a number of its problem; a problem stays on one worker, whose prefix cache
                holds its tree.

        Returns:
            For each share its rows and the reference to its CONTINUATIONS.

        Raises:
            RunError: no worker is left, or a share passed its deadline.
        """
        count = len(self._workers)
        shares = [
            rows
            for worker in range(count)
            if (rows := [row for row, owner in enumerate(owners) if owner % count == worker])
        ]

        def submit(worker: Any, share: Sequence[int]) -> Any:
            return worker.expand.remote(expansions.take(pa.array(share)))

        return list(zip(shares, self._in_shares(shares, submit), strict=True))

    def forget_prefixes(self) -> None:
        """Empty the prefix caches of all workers."""
        refs = [worker.forget_prefixes.remote() for worker in self._workers]
        cluster.fetch(refs, self._deadline, "emptying the prefix caches")

    def _in_shares(self, shares: Sequence[Sequence[int]], submit: Callable[[Any, Any], Any]) -> list[Any]:
        """Let every worker do a share, and another one that of a worker that dies."""
        pending = {
            submit(worker, share): (position, share, worker)
            for position, (share, worker) in enumerate(zip(shares, self._workers, strict=False))
        }
        results: list[Any] = [None] * len(shares)
        while pending:
            ready = cluster.first_ready(list(pending), self._deadline)
            if not ready:
                raise RunError(
                    f"{len(pending)} of {len(shares)} rollout shares did not finish within "
                    f"{self._deadline:g} s; raise rollout.deadline_seconds"
                )
            position, share, worker = pending.pop(ready[0])
            if self._alive(ready[0], worker):
                results[position] = ready[0]
            else:
                other = self._workers[position % len(self._workers)]
                pending[submit(other, share)] = (position, share, other)
        return results

    def _alive(self, ref: Any, worker: Any) -> bool:
        """Whether the share is there; a dead worker leaves the pool, other errors are raised."""
        try:
            cluster.wait_done(ref, self._deadline, "rollouts")
        except RunError as error:
            if not cluster.is_dead(error):
                raise
            self._workers = [w for w in self._workers if w is not worker]
            if not self._workers:
                raise RunError(f"the last rollout worker died: {error}") from error
            return False
        return True

    def update_weights(self, weights: Any) -> None:
        """Give all workers the weights behind a reference (one buffer, read in place)."""
        refs = [worker.update_weights.remote(weights) for worker in self._workers]
        cluster.fetch(refs, self._deadline, "weight sync to the rollout workers")
        self._weights = weights


def _shares(count: int, workers: int) -> list[range]:
    """Contiguous shares of 0..count-1 that differ by at most one; no share is empty."""
    workers = min(workers, count)
    if not workers:
        return []
    bounds = [count * i // workers for i in range(workers + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]
