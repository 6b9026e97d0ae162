"""What Monte Carlo tree search keeps of its tree between two rounds, and values of many nodes at once."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from airls_ray.evaluation.steps import ScoreKind
from airls_ray.search.mcts import MCTS, step_priors
from airls_ray.search.mcts_tree import Tree
from airls_ray.search.tree import ROOT, Child, Node, SearchState
from tests.unit.search_fakes import FakeTree
from tests.unit.test_mcts import step, tell, whole

FEW_LETTERS = FakeTree(letters=2, step_tokens=1, max_steps=4, end=0.4)
"""Siblings are often equal, and nodes close soon and are widened."""


def rounds(searcher: MCTS, seed: int) -> list[dict[str, Any]]:
    """Search, and say after every plan what the kept tree holds beside what all nodes say."""
    state, seen = searcher.start(seed), []
    while asks := searcher.ask(state):
        assert isinstance(state.memory, Tree)
        seen.append({"kept": state.memory.closed.copy(), "nodes": closed(state, state.memory.rollouts)})
        for ask in asks:
            searcher.tell(state, ask.ticket, FEW_LETTERS.answer(state, ask))
    return seen


def closed(state: SearchState, rollouts: set[int]) -> set[int]:
    """Nodes with children that are no rollouts, below which every different child is finished or closed."""
    children = defaultdict(set)
    for at, node in enumerate(state.nodes[1:], 1):
        if at not in rollouts:
            children[node.parent].add(at)

    def is_closed(node: int) -> bool:
        return bool(children[node]) and all(
            state.nodes[child].finished or is_closed(child) or repeats(child) for child in children[node]
        )

    def repeats(at: int) -> bool:
        one = state.nodes[at]
        return any(
            (other.parent, other.tokens, other.finished) == (one.parent, one.tokens, one.finished)
            for other in state.nodes[1:at]
        )

    return {at for at in range(len(state.nodes)) if is_closed(at)}


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("value", ["prm", "rollout"])
def test_the_kept_tree_closes_and_opens_what_all_nodes_say(value: Any, parallel: int) -> None:
    reopened = 0
    for seed in range(10):
        found = rounds(MCTS(12, expansion=2, value=value, parallel=parallel), seed)
        assert [one["kept"] for one in found] == [one["nodes"] for one in found]
        reopened += sum(bool(before["kept"] - after["kept"]) for before, after in pairwise(found))
    assert reopened


@pytest.mark.parametrize("value", ["prm", "rollout"])
def test_a_search_that_was_saved_after_every_round_is_the_same(value: Any) -> None:
    searcher = MCTS(12, expansion=2, value=value)
    whole, saved = searcher.start(3), searcher.start(3)
    while asks := searcher.ask(whole):
        saved = SearchState.from_json(saved.to_json())
        assert searcher.ask(saved) == asks
        for ask in asks:
            searcher.tell(whole, ask.ticket, FEW_LETTERS.answer(whole, ask))
            searcher.tell(saved, ask.ticket, FEW_LETTERS.answer(saved, ask))
    assert searcher.leaves(saved) == searcher.leaves(whole)


def random_paths(kind: ScoreKind, steps: int) -> SearchState:
    """Twenty paths from the root, a node a step, some of them with two steps looked ahead at."""
    rng = np.random.default_rng(steps)
    state = SearchState(0, kind=kind)
    for path in range(20):
        parent = ROOT
        for _ in range(steps):
            tokens = tuple(rng.integers(3, 100, size=rng.integers(1, 200)).tolist())
            ahead = tuple(rng.uniform(0.1, 1.0, size=2 * (path % 2)).tolist())
            child = Child(
                tokens,
                -1.0,
                (float(rng.uniform(0.1, 1.0)),),
                "step",
                ahead=ahead,
                ahead_tokens=(7,) * len(ahead),
            )
            state.nodes.append(Node.of(parent, child))
            parent = len(state.nodes) - 1
    return state


@pytest.mark.parametrize("kind", ["probability", "token_mean", "step_mean"])
def test_values_of_many_nodes_are_those_of_a_plain_loop(kind: ScoreKind) -> None:
    state = random_paths(kind, 30)
    wanted = []
    for node in range(1, len(state.nodes)):
        total, size = 0.0, 0
        for at in state.path(node):
            weight = len(state.nodes[at].tokens) if kind == "token_mean" else 1
            total, size = total + weight * log(state.nodes[at].scores[0]), size + weight
        for score in state.nodes[node].ahead:
            weight = 7 if kind == "token_mean" else 1
            total, size = total + weight * log(score), size + weight
        wanted.append(exp(total if kind == "probability" else total / size))
    assert state.values(range(1, len(state.nodes)), "prod") == pytest.approx(wanted, rel=1e-12)


def test_priors_are_the_softmax_of_mean_log_probabilities() -> None:
    rng = np.random.default_rng(0)
    state = SearchState(0)
    for _ in range(300):
        tokens = tuple(range(int(rng.integers(1, 3000))))
        state.nodes.append(Node.of(ROOT, Child(tokens, -len(tokens) * rng.exponential(), (0.5,), "step")))
    means = [node.log_prob / len(node.tokens) for node in state.nodes[1:]]
    assert step_priors(state, range(1, 301)) == pytest.approx(softmax(means), rel=1e-12)


def test_of_the_longest_leaves_that_score_the_same_the_oldest_is_taken() -> None:
    mcts = MCTS(8, expansion=3, aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.4), step(0.7), step(0.7))
    assert Tree.of(state).longest(state, "last") == 2


def test_a_response_that_is_over_does_not_repeat_a_step_of_the_same_tokens() -> None:
    mcts = MCTS(8, expansion=2, aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.5, token=7), step(0.5, "length", token=7))
    assert mcts.leaves(state) == [2]


def test_a_response_costs_all_its_steps() -> None:
    """Two steps from the root, and a response of three steps behind the first."""

    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last", value="rollout")
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    tell(mcts, state, whole(0.5, 0.5, 0.5))
    tree = Tree.of(state)
    assert (tree.steps, tree.lengths) == (5, [0, 1, 1, 4])
