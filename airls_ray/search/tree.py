"""The state of one problem's search: a tree of token prefixes that the caller owns and can save.

Tokens, never text: a prefix that is decoded and tokenised again is another prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from math import exp
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from airls_ray.evaluation.steps import Aggregate, ScoreKind, aggregate_log_scores, log_scores, score_sizes

ROOT = 0

Finish = Literal["step", "partial", "stop", "length"]
"""Why a node's tokens end: a step is over; in the middle of a step (it was cut on purpose); the response
ended by itself; no tokens (or steps) were left."""


@dataclass(frozen=True)
class Want:
    """A wish of an algorithm: `count` continuations of a node."""

    node: int
    count: int
    whole: bool = False
    """Up to the end of the response instead of the end of a step."""
    max_tokens: int | None = None
    """Cut each after this many tokens (finish "partial"), where it does not end before."""
    lookahead: int = 0
    """Steps that are generated greedily after it, scored with it and thrown away."""
    temperature: float | None = None
    """None: the search's own."""


@dataclass(frozen=True)
class Expansion:
    """A `Want` with what a driver needs to run it: asked, and answered by `tell(ticket, children)`."""

    ticket: int
    want: Want
    seed: int
    """Of the first continuation; the next have seed + 1, ..."""


@dataclass(frozen=True)
class Child:
    """One continuation, generated and scored."""

    tokens: tuple[int, ...]
    """What it adds to its parent's response."""
    log_prob: float
    """Sum of the policy's log-probabilities of `tokens`, in nats."""
    scores: tuple[float, ...]
    """In [0, 1], one for each step that ends in `tokens` (for a partial step its score so far). Where the
    parent ended inside a step, the first one is of that whole step."""
    finish: Finish
    closes: bool = False
    """`tokens` are an end of sequence alone: they belong to the parent's last step, and the one score is of
    that step with them."""
    step_ends: tuple[int, ...] = ()
    """Exclusive ends in `tokens` of the steps; empty: all of them are one step (or its beginning)."""
    step_log_probs: tuple[float, ...] = ()
    """`log_prob` by step; empty: one step."""
    ahead: tuple[float, ...] = ()
    """Scores of the steps looked ahead behind it: part of its value, and of no other node's."""
    ahead_tokens: tuple[int, ...] = ()
    """Tokens of those steps."""


_FIELDS = attrgetter(*(one.name for one in fields(Child)))


@dataclass(frozen=True)
class Node:
    """A prefix: its parent's response and `tokens`."""

    parent: int
    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0
    scores: tuple[float, ...] = ()
    finish: Finish = "step"
    closes: bool = False
    step_ends: tuple[int, ...] = ()
    step_log_probs: tuple[float, ...] = ()
    ahead: tuple[float, ...] = ()
    ahead_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, parent: int, child: Child) -> Node:
        """The node that a child becomes."""
        return cls(parent, *_FIELDS(child))

    @property
    def ends(self) -> tuple[int, ...]:
        """Exclusive ends of the steps in `tokens`, at least one where there are tokens."""
        return self.step_ends or ((len(self.tokens),) if self.tokens else ())

    @property
    def log_probs(self) -> tuple[float, ...]:
        """`log_prob` by step, as many as `ends`."""
        return self.step_log_probs or ((self.log_prob,) if self.tokens else ())

    @property
    def finished(self) -> bool:
        """Whether the response is over."""
        return self.finish in ("stop", "length")


@dataclass
class SearchState:
    """Everything that a search knows; `to_json` and `from_json` save it between any two calls."""

    seed: int
    nodes: list[Node] = field(default_factory=lambda: [Node(parent=-1)])
    last: list[int] = field(default_factory=list)
    """Nodes that the round before made, in the order of the wishes."""
    rounds: int = 0
    """Rounds that are over."""
    tickets: int = 0
    """Expansions asked for so far."""
    pending: dict[int, Expansion] = field(default_factory=dict)
    """Expansions of the round under way."""
    told: dict[int, tuple[Child, ...]] = field(default_factory=dict)
    """Answers to some of them."""
    over: bool = False
    """Whether nothing more will be asked."""
    data: dict[str, Any] = field(default_factory=dict)
    """The algorithm's own memory, JSON values only."""
    kind: ScoreKind = "probability"
    """What the scores of its steps are."""
    answers: dict[int, str | None] = field(default_factory=dict)
    """What finished nodes answer (None: nothing that counts), of searches that read answers."""
    memory: Any = field(default=None, init=False, repr=False, compare=False)
    """What an algorithm has found out about the nodes, so as not to do it again; never saved."""

    def path(self, node: int) -> list[int]:
        """Nodes from the root's child down to `node`; empty for the root."""
        found = []
        while node != ROOT:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    def response(self, node: int) -> list[int]:
        """Tokens of the response up to `node`."""
        return [token for at in self.path(node) for token in self.nodes[at].tokens]

    def step_scores(self, node: int) -> list[float]:
        """One score for each step up to `node`, that of an unfinished last step included."""
        scores: list[float] = []
        for at in self.path(node):
            if self.continues_step(at):
                scores.pop()
            scores += self.nodes[at].scores
        return scores

    def continues_step(self, node: int) -> bool:
        """Whether the first tokens of `node` belong to the step that its parent ended in."""
        one = self.nodes[node]
        return one.closes or self.nodes[one.parent].finish == "partial"

    def value(self, node: int, how: Aggregate) -> float:
        """Score of the prefix in [0, 1]: its step scores (and those looked ahead) reduced to one number; 1
        for the root. It does not fall with the length of a prefix whose scores are densities."""
        return exp(self.log_value(node, how))

    def log_value(self, node: int, how: Aggregate) -> float:
        """Logarithm of `value`, exact where that is 0: what is shared out by.

        A density counts by its mean: the step's own (`last`, `min`, `mean`), or over all factors (`prod`).
        """
        return float(self._log_values([node], how)[0]) if node != ROOT else 0.0

    def values(self, nodes: Sequence[int], how: Aggregate) -> list[float]:
        """`value` of each of some nodes, none of them the root: one call for all is several times faster."""
        return [exp(one) for one in self._log_values(nodes, how).tolist()]

    def log_score(self, node: int, how: Aggregate) -> float:
        """Log-score of the prefix: what ranks responses and weighs votes. Of a density its logarithm as a
        whole, which falls with length as the density does."""
        if node == ROOT:
            return 0.0
        scores, tokens, offsets = self._scores_and_tokens([node])
        logs = log_scores(scores, score_sizes(self.kind, tokens))
        return float(aggregate_log_scores(logs, offsets, how, tokens)[0])

    def _log_values(self, nodes: Sequence[int], how: Aggregate) -> np.ndarray:
        scores, tokens, offsets = self._scores_and_tokens(nodes)
        logs = log_scores(scores)
        if self.kind == "probability" or how != "prod":
            return aggregate_log_scores(logs, offsets, how, tokens)
        sizes = tokens if self.kind == "token_mean" else np.ones(len(logs))
        starts = offsets[:-1]
        return np.asarray(np.add.reduceat(logs * sizes, starts) / np.add.reduceat(sizes, starts))

    def _scores_and_tokens(self, nodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores and tokens of all steps up to each node and looked ahead, and where each node's begin."""
        scores: list[float] = []
        tokens: list[int] = []
        offsets = [0]
        for node in nodes:
            ends = [0]
            length = 0
            for at in self.path(node):  # both at once: this walk is most of a search's own time
                one = self.nodes[at]
                if self.continues_step(at):
                    scores.pop()
                    ends.pop()
                scores += one.scores
                ends += [length + end for end in one.ends]
                length += len(one.tokens)
            last = self.nodes[node]
            scores += last.ahead
            tokens += [end - start for start, end in pairwise(ends)]
            tokens += last.ahead_tokens
            offsets.append(len(scores))
        return np.array(scores, dtype=np.float64), np.array(tokens, dtype=np.int64), np.array(offsets)

    def log_prob(self, node: int) -> float:
        """Log-probability of the response up to `node`, in nats."""
        return sum(self.nodes[at].log_prob for at in self.path(node))

    def step_ends(self, node: int) -> list[int]:
        """Exclusive ends of the steps of the response up to `node`, an unfinished last one included."""
        ends: list[int] = []
        length = 0
        for at in self.path(node):
            if self.continues_step(at):
                ends.pop()
            ends += [length + end for end in self.nodes[at].ends]
            length += len(self.nodes[at].tokens)
        return ends

    def last_step(self, node: int) -> tuple[int, float]:
        """Tokens and log-probability (nats) of the step that `node` ended in; (0, 0) for the root."""
        tokens, log_prob = 0, 0.0
        while node != ROOT:
            one = self.nodes[node]
            tokens += one.ends[-1] - (one.ends[-2] if len(one.ends) > 1 else 0)
            log_prob += one.log_probs[-1]
            if len(one.ends) > 1 or not self.continues_step(node):
                break
            node = one.parent
        return tokens, log_prob

    def depth(self, node: int) -> int:
        """Steps up to `node`, an unfinished last one included."""
        return len(self.step_scores(node))

    def children(self, node: int) -> Iterator[int]:
        """Children of `node` in the order in which they were made."""
        return (at for at, other in enumerate(self.nodes) if other.parent == node)

    def finished(self) -> list[int]:
        """All nodes whose response is over, oldest first."""
        return [at for at, node in enumerate(self.nodes) if node.finished]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` gives an equal state."""
        tree = asdict(replace(self))  # which has no memory
        del tree["memory"]
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> SearchState:
        """Read what `to_json` wrote, also after a trip through JSON text."""
        given = dict(tree)
        given["nodes"] = [_node(node) for node in tree["nodes"]]
        given["pending"] = {
            int(ticket): Expansion(one["ticket"], Want(**one["want"]), one["seed"])
            for ticket, one in tree["pending"].items()
        }
        given["told"] = {
            int(ticket): tuple(_child(child) for child in children)
            for ticket, children in tree["told"].items()
        }
        given["answers"] = {int(node): answer for node, answer in tree.get("answers", {}).items()}
        return cls(**given)


def _node(fields: Mapping[str, Any]) -> Node:
    return Node(**_with_tuples(fields))


def _child(fields: Mapping[str, Any]) -> Child:
    return Child(**_with_tuples(fields))


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
