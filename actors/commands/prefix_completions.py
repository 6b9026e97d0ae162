"""Completions of the prefixes of a chunk's rollouts: all of them at once, or those that a search visits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.cluster import cluster
from actors.cluster.cluster import Refs
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.prm.step_labels import Completed, Completions, distinct_prefixes


class PrefixCompleter:
    """Completes distinct prefixes, each once, and counts how they end."""

    def __init__(
        self,
        pool: RolloutPool,
        verifier: VerifierHandle,
        problems: pa.Table,
        rollouts: pa.Table,
        request: RolloutRequest,
    ) -> None:
        """`rollouts` (ROLLOUTS) of `problems`; `request` says how many completions a prefix gets."""
        self._pool, self._verifier, self._problems, self._request = pool, verifier, problems, request
        self._prefixes = distinct_prefixes(rollouts)
        count = self._prefixes.table.num_rows
        self._found = Completions(np.zeros(count, np.int64), np.zeros(count, np.int64))
        self._done = np.zeros(count, bool)
        self._completions = self._tokens = 0

    def complete_all(self) -> None:
        """Complete every prefix, in one pass of the pool."""
        self._complete(np.arange(len(self._done)))

    def probe(self, rollouts: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Whether the prefixes that end with these steps have a correct completion (bool), in one pass."""
        pairs = zip(rollouts.tolist(), steps.tolist(), strict=True)
        numbers = np.array([self._prefixes.numbers[row][step] for row, step in pairs], np.int64)
        self._complete(numbers)
        right: np.ndarray = self._found.correct[numbers] > 0
        return right

    @property
    def completed(self) -> Completed:
        """The prefixes, and what is known of those that were completed; of others 0 completions."""
        return self._prefixes, self._found

    @property
    def cost(self) -> dict[str, float]:
        """`prefixes, distinct_prefixes` (completed ones), `completions, completion_tokens`."""
        return {
            "prefixes": self._prefixes.all,
            "distinct_prefixes": int(self._done.sum()),
            "completions": self._completions,
            "completion_tokens": self._tokens,
        }

    def _complete(self, numbers: np.ndarray) -> None:
        new = np.unique(numbers[~self._done[numbers]])
        if not new.size:
            return
        sampled = self._pool.complete(self._prefixes.table.take(pa.array(new)), self._request)
        owner, verdicts, tokens = _verdicts(sampled, self._verifier, self._problems)
        counts = Completions.count(len(new), owner, verdicts)
        self._found.made[new], self._found.correct[new] = counts.made, counts.correct
        self._done[new] = True
        self._completions += len(owner)
        self._tokens += tokens


def _verdicts(
    completed: Refs, verifier: VerifierHandle, problems: pa.Table
) -> tuple[np.ndarray, np.ndarray, int]:
    """Prefix and outcome of every completion, and how many tokens were sampled."""
    tables = cluster.resolve(completed)
    if not sum(table.num_rows for table in tables):  # every prefix fills its response
        return np.zeros(0, np.int64), np.zeros(0), 0
    table = pa.concat_tables(tables)
    grades = cluster.resolve([verifier.grade(completed, problems)])[0]
    return table["prefix"].to_numpy(), grades["outcome"].to_numpy(), pc.sum(table["tokens"]).as_py()
