"""AB-MCTS: a tree search that goes wider or deeper as the scores below a node say, by treequest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import SearchState, Want
from airls_ray.search.treequest_bridge import TreeAlgorithm, TreeMemory

_TOLD, _ASKED, _GROWN, _ROLLED, _CLOSED = "told", "asked", "grown", "rolled", "closed"
"""In `state.data`: children of each batch; parents of the batch under way; its children, whose rollouts are
under way; pairs of a child and its rollout; whether the search has ended by completing a response."""


@dataclass(frozen=True)
class ABMCTS(Searcher):
    """Adaptive branching MCTS (Inoue et al. 2025, arXiv 2503.04412) over steps.

    By Thompson sampling over the scores below it, a node gets another child or hands on to one that it has.
    The paper's nodes are answers that children refine. Here they are prefixes that children continue by a
    step. With `value="rollout"` a node is scored by an answer, too: one response that goes on from it, which
    is a result of the search. With `"prm"` its score is that of its prefix; such scores differ little, so the
    tree grows wide and few responses are finished. A finished response cannot be continued: where it is
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
    value: Literal["prm", "rollout"] = "prm"
    """What scores a node: its prefix, or a response that goes on from it."""
    _memory: TreeMemory = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_memory", TreeMemory(self.algorithm))

    def plan(self, state: SearchState) -> list[Want]:
        """The next steps or the rollouts behind them, unless enough were asked for."""
        if _CLOSED in state.data:
            return []
        if rollouts := self._rollouts(state):
            return rollouts
        told = self._take_last(state)
        scores = self._scores(state, told)
        tree = self._memory.tree(state.seed, [[(node, scores[node]) for node in batch] for batch in told])
        while (room := self._room(state, told)) > 0:
            parents = tree.ask(room)
            wants = [Want(node, 1) for node in parents if not state.nodes[node].finished]
            if wants:
                state.data[_ASKED] = parents
                return wants
            told.append(parents)
            tree.tell([(node, scores[node]) for node in parents])
        if state.finished():
            return []
        state.data[_CLOSED] = True
        return [Want(self._deepest(state), 1, whole=True)]

    def _rollouts(self, state: SearchState) -> list[Want]:
        """One response behind each new child that is not finished itself."""
        if self.value == "prm" or _GROWN in state.data or _ASKED not in state.data:
            return []
        state.data[_GROWN] = self._children(state, state.data[_ASKED])
        return [Want(node, 1, whole=True) for node in self._unfinished(state)]

    def _take_last(self, state: SearchState) -> list[list[int]]:
        """Children of every batch so far, those of the last round among them."""
        told: list[list[int]] = state.data.setdefault(_TOLD, [])
        asked = state.data.pop(_ASKED, None)
        if _GROWN in state.data:
            rolled = zip(self._unfinished(state), state.last, strict=False)
            state.data.setdefault(_ROLLED, []).extend([node, rollout] for node, rollout in rolled)
            told.append(state.data.pop(_GROWN))
        elif asked:
            told.append(self._children(state, asked))
        return told

    @staticmethod
    def _children(state: SearchState, parents: Sequence[int]) -> list[int]:
        """What the round gave each parent; a finished response is its own child."""
        news = iter(state.last)
        return [node if state.nodes[node].finished else next(news) for node in parents]

    @staticmethod
    def _unfinished(state: SearchState) -> list[int]:
        return [node for node in state.data[_GROWN] if not state.nodes[node].finished]

    def _scores(self, state: SearchState, told: Sequence[Sequence[int]]) -> dict[int, float]:
        """Score of every node of the tree."""
        rolled = dict(state.data.get(_ROLLED, []))
        nodes = list(dict.fromkeys(node for batch in told for node in batch))
        judged = [rolled.get(node, node) for node in nodes]
        return dict(zip(nodes, state.values(judged, self.aggregate), strict=True)) if nodes else {}

    def _room(self, state: SearchState, told: Sequence[Sequence[int]]) -> int:
        """Children of the next batch; 0: the budget is spent."""
        finished = state.finished()
        asked = sum(len(batch) for batch in told)
        if self.value == "rollout":
            if not finished:
                return min(self.batch, self.width)
            mean = max(sum(_steps(state, node) for node in finished) / len(finished), 1.0)
            again = asked - len({node for batch in told for node in batch})
            spent = sum(len(node.ends) for node in state.nodes) + again
            return max(min(self.batch, int(self.width - spent / mean + 1e-9)), 0)
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


def _steps(state: SearchState, node: int) -> int:
    return sum(len(state.nodes[at].ends) for at in state.path(node))
