"""The tree as Monte Carlo tree search sees it, and what it remembers of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.tree import ROOT, SearchState


@dataclass
class Tree:
    """Kept with the state while it is searched, and grown by the nodes of each round; made anew where gone.

    To look at all nodes in every round would take most of the time of a long search.
    """

    children: list[list[int]] = field(default_factory=lambda: [[]])
    """By node: its children without rollouts and without those that repeat an older sibling."""
    lengths: list[int] = field(default_factory=lambda: [0])
    """By node: steps sampled on the way to it, an end of sequence alone included."""
    steps: int = 0
    """Steps sampled in all."""
    sampled: list[int] = field(default_factory=lambda: [0])
    """By node: children sampled, equal ones counted, rollouts not."""
    finished: list[int] = field(default_factory=list)
    """Nodes whose response is over, oldest first."""
    rollouts: set[int] = field(default_factory=set)
    """Nodes that are whole responses, sampled to value their parent."""
    repeated: set[int] = field(default_factory=set)
    """Nodes with the tokens of an older sibling."""
    closed: set[int] = field(default_factory=set)
    """Nodes with children, all of which are finished or closed."""
    blocked: set[int] = field(default_factory=set)
    """Nodes that are not selected in this round: closed, chosen already, or with nothing else below."""
    seen: set[tuple[int, tuple[int, ...], bool]] = field(default_factory=set)
    """Parent and tokens of all nodes, and whether they are finished."""

    @classmethod
    def of(cls, state: SearchState) -> Tree:
        """Look at the state, with nothing blocked but what is closed."""
        tree = state.memory
        if not isinstance(tree, cls) or len(tree.children) > len(state.nodes):
            state.memory = tree = cls()
        tree.rollouts = set(_rollouts(state))
        for node in range(len(tree.children), len(state.nodes)):
            tree._add(state, node)
        tree.blocked = set(tree.closed)
        return tree

    def _add(self, state: SearchState, at: int) -> None:
        node = state.nodes[at]
        steps = len(node.step_ends) or 1
        self.steps += steps
        self.children.append([])
        self.sampled.append(0)
        self.lengths.append(self.lengths[node.parent] + steps)
        key = (node.parent, node.tokens, node.finished)
        if node.finished:
            self.finished.append(at)
        if key in self.seen:
            self.repeated.add(at)
        elif at not in self.rollouts:
            self.children[node.parent].append(at)
        self.seen.add(key)
        if at not in self.rollouts:
            self.sampled[node.parent] += 1
            self._close(state, node.parent)

    def _close(self, state: SearchState, node: int) -> None:
        """Close a node that has got a child, or open it again, and those above it where that changes it."""
        while node >= ROOT:
            closes = self._is_used_up(state, node, self.closed)
            if closes == (node in self.closed):
                break
            (self.closed.add if closes else self.closed.discard)(node)
            node = state.nodes[node].parent

    def block(self, state: SearchState, node: int) -> None:
        """Keep selection away from a node, and from those above it with nothing else left below."""
        self.blocked.add(node)
        while node != ROOT:
            node = state.nodes[node].parent
            if not self._is_used_up(state, node, self.blocked):
                break
            self.blocked.add(node)

    def longest(self, state: SearchState, how: Aggregate) -> int | None:
        """The leaf with the most steps that can be expanded and is not blocked; of equals the best value."""
        leaves = [ROOT, *(child for children in self.children for child in children)]
        open_leaves = [
            node
            for node in leaves
            if not (self.children[node] or node in self.blocked or state.nodes[node].finished)
        ]
        if not open_leaves:
            return None
        most = max(self.lengths[node] for node in open_leaves)
        # A score costs a walk to the root, so only those compared by it are scored.
        longest = [node for node in open_leaves if self.lengths[node] == most]
        return max(longest, key=lambda node: (state.log_score(node, how), -node))

    def _is_used_up(self, state: SearchState, node: int, without: set[int]) -> bool:
        return all(child in without or state.nodes[child].finished for child in self.children[node])


@dataclass
class Statistics:
    """Visits and values, kept in `state.data`."""

    visits: list[int]
    totals: list[float]
    """Sums of the values backed up."""
    rollouts: list[int]
    losses: list[int]
    """Visits pretended for this round."""

    @classmethod
    def of(cls, state: SearchState) -> Statistics:
        """Read what the last round left, and add the new nodes."""
        visits, totals = state.data.get("visits", []), state.data.get("totals", [])
        more = len(state.nodes) - len(visits)
        return cls(
            visits=[*visits, *[0] * more],
            totals=[*totals, *[0.0] * more],
            rollouts=_rollouts(state),
            losses=[0] * len(state.nodes),
        )

    def save(self, state: SearchState, rolled: Sequence[int]) -> None:
        """Write them back, with the leaves that this round rolls out."""
        state.data.update(visits=self.visits, totals=self.totals, rollouts=self.rollouts, rolled=list(rolled))

    def back_up(self, state: SearchState, node: int, value: float) -> None:
        """Count a visit of this value at the node and all above it."""
        for at in [ROOT, *state.path(node)]:
            self.visits[at] += 1
            self.totals[at] += value

    def pretend(self, state: SearchState, node: int) -> None:
        """Count a visit of value 0 for this round (virtual loss)."""
        for at in [ROOT, *state.path(node)]:
            self.losses[at] += 1

    def count(self, node: int) -> int:
        """Visits, pretended ones included."""
        return self.visits[node] + self.losses[node]

    def mean(self, node: int, parent: int) -> float:
        """Mean value; its parent's where the node has no visits."""
        at = node if self.count(node) else parent
        return self.totals[at] / max(self.count(at), 1)


def _rollouts(state: SearchState) -> list[int]:
    """All nodes that are rollouts, those of the round that just ended included."""
    rolled = set(state.data.get("rolled", []))
    new = [node for node in state.last if state.nodes[node].parent in rolled]
    return [*state.data.get("rollouts", []), *new]
