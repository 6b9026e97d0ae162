"""Chunk reset: a chain whose bad steps are sampled again from where they began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airls_ray.evaluation.steps import SCORE_ROUNDING, Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want

_CHAINS, _ROUNDS = "chains", "rounds"


@dataclass(frozen=True)
class ChunkReset(Searcher):
    """`width` chains that know nothing of each other; with one of them it is StepWiser's (arXiv 2508.19229).

    After section 4.4: a step whose score reaches `threshold` is accepted, and the chain goes on behind it.
    Another one is thrown away and sampled again from the same prefix, `attempts` times in all. The paper
    does not say what happens then; here the best of the attempts is accepted, the first of equal ones.
    """

    width: int
    threshold: float = 0.5
    """Least score of an accepted step, in [0, 1]; of a density its mean over the step's tokens."""
    attempts: int = 5
    """Most samples of one step, the first included."""
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """The next step, or another try at it, of every chain that is not finished."""
        chains = self._chains(state)
        state.data[_CHAINS], state.data[_ROUNDS] = chains, state.rounds
        if not state.rounds:
            return [Want(ROOT, self.width)]
        return [Want(chain["at"], 1) for chain in chains if not state.nodes[chain["at"]].finished]

    def leaves(self, state: SearchState) -> list[int]:
        """Where the chains ended; of one that was stopped among its attempts the best one, if finished."""
        chains = self._chains(state)
        ends = [self._best(state, chain["tries"]) if chain["tries"] else chain["at"] for chain in chains]
        return sorted(node for node in ends if state.nodes[node].finished)

    def _chains(self, state: SearchState) -> list[dict[str, Any]]:
        """Accepted end (`at`) and attempts at the next step (`tries`) of each chain, with those of the last
        round, which `plan` has not seen yet where the search was stopped."""
        chains: list[dict[str, Any]] = state.data.get(_CHAINS, [{"at": ROOT, "tries": []}] * self.width)
        if state.data.get(_ROUNDS, 0) == state.rounds:
            return chains
        news = iter(state.last)  # one of each chain that was not finished, in their order
        return [
            chain if state.nodes[chain["at"]].finished else self._judged(state, chain, next(news))
            for chain in chains
        ]

    def _judged(self, state: SearchState, chain: dict[str, Any], node: int) -> dict[str, Any]:
        """The chain after another attempt."""
        tries = [*chain["tries"], node]
        if state.value(node, "last") >= self.threshold - SCORE_ROUNDING:
            return {"at": node, "tries": []}
        if len(tries) < self.attempts:
            return {"at": chain["at"], "tries": tries}
        return {"at": self._best(state, tries), "tries": []}

    def _best(self, state: SearchState, nodes: Sequence[int]) -> int:
        return max(nodes, key=lambda node: (state.value(node, "last"), -node))
