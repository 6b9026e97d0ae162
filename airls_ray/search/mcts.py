"""Monte Carlo tree search over steps.

    select a leaf from the root -> expand it (or roll it out) -> back values up to the root

Sources: UCT, Kocsis and Szepesvari 2006; PUCT with its constants, Silver et al. 2018 (AlphaZero); the prior
from log-probabilities, OpenR (arXiv 2410.09671); every new node backs its own score up, treequest
(arXiv 2503.04412); progressive widening, Couetoux et al. 2011 (Continuous UCT). `mcts_tree` holds the
statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, log, sqrt
from typing import Literal

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.mcts_tree import Statistics, Tree
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want

PUCT_BASE = 19652.0
PUCT_INIT = 1.25


@dataclass(frozen=True)
class MCTS(Searcher):
    """Grow the tree where mean values are high or visits are few, for the price of `width` samples.

    The search ends when it has sampled `width` times as many steps as its finished responses have on
    average, which is what Best-of-N pays for `width` of them, or when it has found `width` that differ. As
    long as none is finished the longest prefix counts in place of the average; a leaf that is too dear then
    gives way to the best of the longest prefixes, which never is. So every search finds a response, and none
    samples more than `width` times the steps that a response may have.

    Equal siblings count once, and a finished response is a leaf whose value is backed up again when selection
    comes back to it: without an expansion, and once a round at most, so that selection ends. A node below
    which all responses are finished is closed: it is not selected any more. When nothing is left to expand, a
    node gets more children (`_to_widen`); with `widening_power` also on the way down.

    Defaults are the textbook's; those of a run are `search.mcts`.
    """

    width: int
    expansion: int = 4
    """m: children of a node that is expanded."""
    selection: Literal["uct", "puct"] = "puct"
    exploration: float = 1.0
    """Weight of the exploration term; 0: the highest mean value is followed."""
    value: Literal["prm", "rollout"] = "prm"
    """Value of a new node: the score of its prefix; or that of one whole response continued from it, sampled
    when it is first selected (the second time it is expanded). Finished nodes always have their score."""
    aggregate: Aggregate = "prod"
    parallel: int = 1
    """Leaves of a round. Those already chosen count as a visit of value 0 (virtual loss)."""
    widening: bool = True
    """Whether a search with all its nodes closed goes on; else it ends, whatever it may still spend."""
    widening_power: float = 0.0
    """a: selection stops at a node with n visits that has fewer than n^a sampled children, which gets more;
    0: it always goes on to a leaf."""

    def plan(self, state: SearchState) -> list[Want]:
        """The next leaves."""
        tree = Tree.of(state)
        known = Statistics.of(state)
        self._back_up_last(state, tree, known)
        wants: list[Want] = []
        while len(wants) < self.parallel:
            leaf = self._select(state, tree, known)
            if leaf is None and self.widening and not wants:
                leaf = self._to_widen(state, tree, known)
            if leaf is None:
                break
            want = self._afford(state, tree, known, leaf, wants)
            if want is None:
                break
            wants.append(want)
            known.pretend(state, want.node)
            tree.block(state, want.node)
        known.save(state, [want.node for want in wants if want.whole])
        return wants

    def leaves(self, state: SearchState) -> list[int]:
        """Finished responses; equal siblings are one."""
        tree = Tree.of(state)
        return [node for node in tree.finished if node not in tree.repeated]

    def _back_up_last(self, state: SearchState, tree: Tree, known: Statistics) -> None:
        values = state.values(state.last, self.aggregate)
        for node, value in zip(state.last, values, strict=True):
            if node in tree.rollouts:
                known.back_up(state, state.nodes[node].parent, value)
            elif node not in tree.repeated and (self.value == "prm" or state.nodes[node].finished):
                known.back_up(state, node, value)

    def _select(self, state: SearchState, tree: Tree, known: Statistics) -> int | None:
        """Leaf that selection comes to; None: all that is left is chosen already."""
        while ROOT not in tree.blocked:
            node = ROOT
            while tree.children[node]:
                if self.widening_power and tree.sampled[node] < known.count(node) ** self.widening_power:
                    return node
                open_children = [child for child in tree.children[node] if child not in tree.blocked]
                node = self._best_child(state, tree, known, node, open_children)
            if not state.nodes[node].finished:
                return node
            known.back_up(state, node, state.value(node, self.aggregate))
            tree.block(state, node)
        return None

    def _to_widen(self, state: SearchState, tree: Tree, known: Statistics) -> int:
        """Node that gets more children: along the best ones the first with fewer than sqrt(visits), or the
        last."""
        node = ROOT
        while tree.sampled[node] >= sqrt(known.count(node)):
            inner = [child for child in tree.children[node] if tree.children[child]]
            if not inner:
                break
            node = self._best_child(state, tree, known, node, inner)
        return node

    def _best_child(
        self, state: SearchState, tree: Tree, known: Statistics, parent: int, among: Sequence[int]
    ) -> int:
        """The best of some children of a node; priors are over all of them."""
        children = tree.children[parent]
        if self.selection == "uct":
            bonuses = [uct_bonus(known.count(parent), known.count(child)) for child in children]
        else:
            priors = step_priors(state, children)
            bonuses = [
                puct_bonus(prior, known.count(parent), known.count(child))
                for prior, child in zip(priors, children, strict=True)
            ]
        scores = {
            child: known.mean(child, parent) + (self.exploration * bonus if bonus < inf else inf)
            for child, bonus in zip(children, bonuses, strict=True)
            if child in among
        }
        return max(scores, key=lambda child: (scores[child], -child))

    def _afford(
        self, state: SearchState, tree: Tree, known: Statistics, leaf: int, wants: Sequence[Want]
    ) -> Want | None:
        """What to ask for at `leaf`, or in its place; None: the budget does not allow it."""
        finished = tree.finished
        found = sum(node not in tree.repeated for node in finished)
        places = self.width - found - sum(want.count for want in wants)
        roll = self._rolls_out(known, leaf)
        if not finished and not roll and self._left(tree, leaf, finished, wants) < self._children():
            longest = tree.longest(state, self.aggregate)
            leaf = leaf if longest is None else longest
        left = self._left(tree, leaf, finished, wants)
        if roll:
            fits = places >= 1 and self._steps_left(tree, leaf, finished) <= left
            return Want(leaf, 1, whole=True) if fits else None
        count = int(min(self._children(), places, left))
        return Want(leaf, count) if count >= 1 else None

    def _children(self) -> int:
        """Of a node that is expanded while there is room for them; a path of them is within the budget."""
        return min(self.expansion, self.width)

    def _rolls_out(self, known: Statistics, leaf: int) -> bool:
        return self.value == "rollout" and leaf != ROOT and not known.visits[leaf]

    def _left(self, tree: Tree, leaf: int, finished: Sequence[int], wants: Sequence[Want]) -> float:
        """Steps that may still be sampled, at `leaf` now and elsewhere later."""
        spent = sum(
            self._steps_left(tree, want.node, finished) if want.whole else want.count for want in wants
        )
        if finished:
            allowed = self.width * sum(tree.lengths[node] for node in finished) / len(finished)
        else:
            allowed = self.width * max(*tree.lengths, tree.lengths[leaf] + 1)
        return allowed - tree.steps - spent

    def _steps_left(self, tree: Tree, leaf: int, finished: Sequence[int]) -> float:
        """Steps that a rollout from `leaf` is taken to need: up to the mean length, at least one."""
        if not finished:
            return 1.0
        mean = sum(tree.lengths[node] for node in finished) / len(finished)
        return max(1.0, mean - tree.lengths[leaf])


def uct_bonus(parent_visits: int, visits: int) -> float:
    """Return sqrt(ln N / n); infinite for a child without visits."""
    return sqrt(log(parent_visits) / visits) if visits else inf


def puct_bonus(prior: float, parent_visits: int, visits: int) -> float:
    """Return prior * c(N) * sqrt(N) / (1 + n), c(N) = ln((N + 19653) / 19652) + 1.25; N is at least 1."""
    parent = max(parent_visits, 1)
    rate = log((parent + PUCT_BASE + 1.0) / PUCT_BASE) + PUCT_INIT
    return prior * rate * sqrt(parent) / (1 + visits)


def step_priors(state: SearchState, siblings: Sequence[int]) -> list[float]:
    """Softmax over siblings of the mean log-probability of their tokens."""
    nodes = [state.nodes[node] for node in siblings]
    means = [node.log_prob / max(len(node.tokens), 1) for node in nodes]
    most = max(means)  # of a few numbers: calls of numpy would be most of a descent
    shares = [exp(mean - most) for mean in means]
    total = fsum(shares)
    return [share / total for share in shares]
