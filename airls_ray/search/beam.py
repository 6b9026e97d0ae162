"""Beam search over steps, its lookahead form, and diverse verifier tree search (DVTS).

After search-and-learn (SAL) and its critics: the width counts finished responses, so that the cost is the
same whether they end early or late, and finished responses are never out-scored and lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class Beam(Searcher):
    """Keep the best `width / expansion` prefixes and continue each `expansion` times.

    A finished response takes its place in the width: `width` minus the finished ones are expanded.
    """

    width: int
    expansion: int = 4
    aggregate: Aggregate = "prod"
    lookahead: int = 0
    """Steps generated greedily after each step, scored with it and thrown away; 0 is plain beam search."""
    distinct: bool = True
    """Equal prefixes count once when the best are kept."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it is the lookahead form."""
        return self.lookahead > 0

    def plan(self, state: SearchState) -> list[Want]:
        """One level."""
        if not state.rounds:
            return [Want(ROOT, self.width, lookahead=self.lookahead)]
        live = [node for node in state.last if not state.nodes[node].finished]
        room = self.width - len(state.finished())
        kept = best_prefixes(state, live, ceil(room / self.expansion), self.aggregate, self.distinct)
        return spread(kept, room, self.lookahead)


@dataclass(frozen=True)
class DVTS(Searcher):
    """`width / expansion` independent subtrees that keep their one best prefix (Beeching et al. 2024).

    Only finished responses become answers; one that ends takes its place in its subtree's width.
    """

    width: int
    expansion: int = 4
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """One level of every subtree."""
        if not state.rounds:
            return [Want(ROOT, self.width)]
        members: dict[int, list[int]] = {}
        finished: dict[int, int] = {}
        for node in state.last:
            if not state.nodes[node].finished:
                members.setdefault(self._subtree(state, node), []).append(node)
        for node in state.finished():
            finished[self._subtree(state, node)] = finished.get(self._subtree(state, node), 0) + 1
        wants = []
        for subtree, live in sorted(members.items()):
            room = self._width(subtree) - finished.get(subtree, 0)
            kept = best_prefixes(state, live, 1, self.aggregate)
            wants += spread(kept, room)
        return wants

    def _subtrees(self) -> int:
        return max(1, self.width // self.expansion)

    def _subtree(self, state: SearchState, node: int) -> int:
        """Subtree of a node: that of its ancestor on the first level, whose nodes are 1..width."""
        return (state.path(node)[0] - 1) * self._subtrees() // self.width

    def _width(self, subtree: int) -> int:
        """Nodes of the first level that belong to a subtree."""
        count = self._subtrees()
        return sum(1 for at in range(self.width) if at * count // self.width == subtree)


def best_prefixes(
    state: SearchState, nodes: Sequence[int], count: int, how: Aggregate, distinct: bool = True
) -> list[int]:
    """Return the `count` nodes of highest score, best first; of equal scores the older one is better.

    With `distinct`, nodes with equal responses count once (the oldest of them).
    """
    if distinct:
        first: dict[tuple[int, ...], int] = {}
        for node in nodes:
            first.setdefault(tuple(state.response(node)), node)
        nodes = list(first.values())
    return sorted(nodes, key=lambda node: (-state.log_score(node, how), node))[: max(count, 0)]


def spread(kept: Sequence[int], total: int, lookahead: int = 0) -> list[Want]:
    """Share `total` continuations out evenly; the better nodes (which come first) get what is left over."""
    if not kept or total < 1:
        return []
    each, more = divmod(total, len(kept))
    counts = [each + (at < more) for at in range(len(kept))]
    return [Want(node, count, lookahead=lookahead) for node, count in zip(kept, counts, strict=True) if count]
