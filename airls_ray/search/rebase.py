"""REBASE: reward-balanced search over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.allocation import rebase_counts
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class REBASE(Searcher):
    """Share the width out over all live prefixes by a softmax of their scores (Wu et al. 2024, 2408.00724).

    A finished response takes its place in the width; so `width` responses finish, and every round expands
    as many prefixes as the round before left live.
    """

    width: int
    temperature: float = 0.2
    """T_b: a prefix gets continuations in proportion to exp(score / T_b)."""
    aggregate: Aggregate = "prod"
    """Score of a finished response, for the answer; the shares do not use it."""
    score: Aggregate = "last"
    """How step scores become the score that shares; the paper takes that of the last step."""

    def plan(self, state: SearchState) -> list[Want]:
        """One level."""
        if not state.rounds:
            return [Want(ROOT, self.width)]
        live = [node for node in state.last if not state.nodes[node].finished]
        room = self.width - len(state.finished())
        if not live or room < 1:
            return []
        kept = self.keep(state, live, room)
        counts = self.shares(state, kept, room)
        return [Want(node, count) for node, count in zip(kept, counts, strict=True) if count]

    def keep(self, state: SearchState, live: Sequence[int], room: int) -> Sequence[int]:
        """Return the live nodes over which `room` continuations are shared out: all of them."""
        return live

    def shares(self, state: SearchState, nodes: Sequence[int], room: int) -> list[int]:
        """Return the continuations of each node, `room` together."""
        scores = np.array(state.values(nodes, self.score))
        return [int(count) for count in rebase_counts(scores, room, self.temperature)]
