"""The rollout workers as one: a share of the groups each, every group delivered exactly once."""

from __future__ import annotations

from collections.abc import Sequence
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
        shares = _shares(problems.num_rows, len(self._workers))
        pending = {
            self._submit(worker, problems, share, request): (position, share, worker)
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
                pending[self._submit(other, problems, share, request)] = (position, share, other)
        return results

    def _submit(self, worker: Any, problems: pa.Table, share: range, request: RolloutRequest) -> Any:
        groups = [request.first_group + row for row in share]
        return worker.generate.remote(problems.slice(share.start, len(share)), groups, request)

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
    bounds = [count * i // workers for i in range(workers + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]
