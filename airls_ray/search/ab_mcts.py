"""AB-MCTS: a tree search that goes wider or deeper as the scores below a node say, by treequest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import SearchState, Want
from airls_ray.search.treequest_bridge import TreeAlgorithm, TreeMemory

_TOLD, _ASKED, _CLOSED = "told", "asked", "closed"
"""In `state.data`: children of each batch; parents of the batch under way; whether the search has ended by
completing a response."""


@dataclass(frozen=True)
class ABMCTS(Searcher):
    """Adaptive branching MCTS (Inoue et al. 2025, arXiv 2503.04412) over steps.

    By Thompson sampling over the scores below it, a node gets another child or hands on to one that it has.
    The paper's nodes are answers that children refine; here they are prefixes that children continue by a
    step, and a node's score is that of its prefix. A finished response cannot be continued: where it is
    chosen, it counts as its own child, at no cost but the budget's.

    The budget is `width` responses of the mean number of steps of the finished ones: so many steps are asked
    for. Until one is finished, the depth that the tree has reached, and one more, stands for that mean. A
    search that has spent this without any response completes its deepest prefix, the best of these.
    """

    width: int
    algorithm: Callable[[], TreeAlgorithm]
    """Makes the library's algorithm."""
    batch: int = 1
    """Steps of a round. The paper's method asks for one; more are faster and make the tree wider."""
    aggregate: Aggregate = "prod"
    _memory: TreeMemory = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_memory", TreeMemory(self.algorithm))

    def plan(self, state: SearchState) -> list[Want]:
        """The next steps, unless enough were asked for."""
        if _CLOSED in state.data:
            return []
        told = self._take_last(state)
        tree = self._memory.tree(state.seed, [[self._child(state, node) for node in batch] for batch in told])
        while (room := self._room(state, told)) > 0:
            parents = tree.ask(room)
            wants = [Want(node, 1) for node in parents if not state.nodes[node].finished]
            if wants:
                state.data[_ASKED] = parents
                return wants
            told.append(parents)
            tree.tell([self._child(state, node) for node in parents])
        if state.finished():
            return []
        state.data[_CLOSED] = True
        return [Want(self._deepest(state), 1, whole=True)]

    def _take_last(self, state: SearchState) -> list[list[int]]:
        """Children of every batch so far, those of the last round among them."""
        told: list[list[int]] = state.data.setdefault(_TOLD, [])
        news = iter(state.last)
        if asked := state.data.pop(_ASKED, None):
            told.append([node if state.nodes[node].finished else next(news) for node in asked])
        return told

    def _child(self, state: SearchState, node: int) -> tuple[int, float]:
        return node, state.value(node, self.aggregate)

    def _room(self, state: SearchState, told: Sequence[Sequence[int]]) -> int:
        """Steps of the next batch; 0: the budget is spent."""
        finished = state.finished()
        asked = sum(len(batch) for batch in told)
        lengths = [len(state.path(node)) for node in finished or range(len(state.nodes))]
        depth = sum(lengths) / len(lengths) if finished else max(lengths) + 1
        left = int(self.width * depth - asked)
        return max(min(self.batch, self.width - len(finished), left), 0)

    def _deepest(self, state: SearchState) -> int:
        """Of the deepest prefixes the best; of equal ones the oldest."""
        ranks = {
            node: (len(state.path(node)), state.log_score(node, self.aggregate), -node)
            for node in range(len(state.nodes))
        }
        return max(ranks, key=ranks.__getitem__)
