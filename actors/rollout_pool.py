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

        return self._in_shares(problems.num_rows, submit)

    def complete(self, prefixes: pa.Table, request: RolloutRequest) -> list[Any]:
        """Continue all prefixes (schema PREFIXES); one table (COMPLETIONS) per share, in prefix order.

        Each worker continues its share in one batch; `request.first_group` numbers the first prefix.

        Raises:
            RunError: no worker is left, or a share passed its deadline.
        """

        def submit(worker: Any, share: range) -> Any:
            numbers = [request.first_group + row for row in share]
            return worker.complete.remote(prefixes.slice(share.start, len(share)), numbers, request)

        return self._in_shares(prefixes.num_rows, submit)

    def _in_shares(self, count: int, submit: Callable[[Any, range], Any]) -> list[Any]:
        """Let every worker do a share of 0..count-1, and another one that of a worker that dies."""
        shares = _shares(count, len(self._workers))
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
