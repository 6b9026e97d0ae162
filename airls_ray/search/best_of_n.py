"""Best-of-N: whole responses, independent of each other; what is chosen among them is the answer rule."""

from __future__ import annotations

from dataclasses import dataclass

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class BestOfN(Searcher):
    """`width` samples of the policy in one round."""

    width: int
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """One round."""
        return [] if state.rounds else [Want(ROOT, self.width, whole=True)]
