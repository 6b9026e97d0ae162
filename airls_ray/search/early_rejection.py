"""Beam search that rejects on partial steps: a cheap beginning of a step is scored before it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.beam import best_prefixes, spread
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class EarlyRejection(Searcher):
    """Beam search whose prefixes compete after `tokens` tokens of their next step; only the best finish it.

    It is safe where partial and final scores of steps rank alike (`airls-ray evaluate-prm` measures
    Kendall's tau). With `tokens` above the longest step it is beam search.
    """

    width: int
    expansion: int = 4
    tokens: int = 32
    aggregate: Aggregate = "prod"
    distinct: bool = True

    def plan(self, state: SearchState) -> list[Want]:
        """Beginnings of the next steps, or the rest of those that were kept."""
        if not state.rounds:
            return [Want(ROOT, self.width, max_tokens=self.tokens)]
        room = self.width - len(state.finished())
        live = [node for node in state.last if not state.nodes[node].finished]
        if not state.data.pop("finishing", False):
            kept = best_prefixes(state, live, ceil(room / self.expansion), self.aggregate, self.distinct)
            cut = [node for node in kept if state.nodes[node].finish == "partial"]
            state.data["kept"] = [node for node in kept if node not in cut]
            if cut:
                state.data["finishing"] = True
                return [Want(node, 1) for node in cut]
        else:
            merged = [*state.data["kept"], *live]
            state.data["kept"] = best_prefixes(state, merged, len(merged), self.aggregate, distinct=False)
        return [
            Want(want.node, want.count, max_tokens=self.tokens) for want in spread(state.data["kept"], room)
        ]
