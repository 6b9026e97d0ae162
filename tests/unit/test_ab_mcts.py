"""AB-MCTS over steps: the bridge to treequest, by a small tree of its interface and by the library itself."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from airls_ray.config.search_section import SearchConfig
from airls_ray.errors import ConfigError
from airls_ray.search.ab_mcts import ABMCTS
from airls_ray.search.registry import make_searcher
from airls_ray.search.tree import SearchState
from airls_ray.search.treequest_bridge import Batch, TreeAlgorithm, TreeMemory, ab_mcts_a
from airls_ray.seeding import derive_seed
from tests.unit.search_fakes import FIRST_LETTER, letters_of, oracle, run
from tests.unit.search_fakes import run as run_search

needs_treequest = pytest.mark.skipif(
    importlib.util.find_spec("treequest") is None, reason="needs the package treequest"
)


@dataclass
class Asked:
    trial_id: str
    parent_state: int | None


@dataclass
class Grown:
    """A tree: parent of each node told, and its score."""

    nodes: list[int | None] = field(default_factory=lambda: [None])
    scores: list[float] = field(default_factory=lambda: [0.5])
    parents: dict[str, int | None] = field(default_factory=dict)


class ByScores:
    """Draws the node that gets a child by the scores, from numpy's global generator as treequest does."""

    def init_tree(self) -> Grown:
        return Grown()

    def ask_batch(self, state: Grown, batch_size: int, actions: list[str]) -> tuple[Grown, list[Asked]]:
        made = []
        for _ in range(batch_size):
            weights = np.array(state.scores) + 0.01
            node = state.nodes[np.random.choice(len(weights), p=weights / weights.sum())]
            made.append(Asked(f"trial {len(state.parents)}", node))
            state.parents[made[-1].trial_id] = node
        return state, made

    def tell(self, state: Grown, trial_id: str, result: tuple[int, float]) -> Grown:
        assert trial_id in state.parents and 0.0 <= result[1] <= 1.0
        state.nodes.append(result[0])
        state.scores.append(result[1])
        return state


def library() -> TreeAlgorithm:
    return ab_mcts_a("gaussian")


MAKERS = [pytest.param(ByScores, id="small"), pytest.param(library, id="treequest", marks=needs_treequest)]


def tree_without_bridge(make: Callable[[], Any], state: SearchState, batch: int) -> list[int]:
    """Parents of our nodes, had one tree been asked and told all along without being made again."""
    algorithm, parents, finished = make(), [-1], [False]
    tree = algorithm.init_tree()
    asked = [len(one) for one in state.data["told"]]
    for number, size in enumerate(asked):
        np.random.seed(derive_seed(state.seed, "treequest", number))
        tree, trials = algorithm.ask_batch(tree, size, ["continue"])
        children = []
        for trial in trials:
            parent = trial.parent_state or 0
            if finished[parent]:
                children.append(parent)
                continue
            children.append(len(parents))
            parents.append(parent)
            finished.append(state.nodes[len(parents) - 1].finished)
        for trial, node in zip(trials, children, strict=True):
            tree = algorithm.tell(tree, trial.trial_id, (node, state.value(node, "prod")))
    return parents


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("make", MAKERS)
def test_the_tree_is_the_one_of_a_library_that_is_never_made_again(
    make: Callable[[], TreeAlgorithm], batch: int
) -> None:
    for seed in range(5):
        state = run(ABMCTS(8, make, batch), seed=seed)
        told = [node.parent for node in state.nodes]
        if "closed" in state.data:
            told.pop()
        elif "asked" in state.data:
            pytest.fail("a search that is over has a batch under way")
        assert tree_without_bridge(make, state, batch) == told


@pytest.mark.parametrize("value", ["prm", "rollout"])
@pytest.mark.parametrize("make", MAKERS)
def test_a_saved_state_goes_on_and_numpys_own_generator_is_left_alone(
    make: Callable[[], TreeAlgorithm], value: Literal["prm", "rollout"]
) -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    plain = run(ABMCTS(8, make, 2, value=value), seed=1)
    saved = run(ABMCTS(8, make, 2, value=value), seed=1, save=True, shuffle=0)
    assert np.random.random(3) == pytest.approx(expected, abs=0.0)
    assert json.dumps(saved.to_json()) == json.dumps(plain.to_json())


@pytest.mark.parametrize("make", MAKERS)
def test_a_tree_that_was_dropped_asks_for_the_same_again(make: Callable[[], TreeAlgorithm]) -> None:
    kept, dropped = TreeMemory(make), TreeMemory(make, most=0)
    rng = np.random.default_rng(0)
    pasts: dict[int, list[Batch]] = {3: [], 4: []}
    for at in range(40):
        told = pasts[3 + at % 2]
        asked = kept.tree(3 + at % 2, told).ask(2)
        assert dropped.tree(3 + at % 2, told).ask(2) == asked
        assert kept.tree(3 + at % 2, told).ask(2) == asked  # asked again, as of a state that was saved
        told.append([(2 * at + 1, rng.random()), (2 * at + 2, rng.random())])


@pytest.mark.parametrize("width", [1, 2, 8, 32])
@pytest.mark.parametrize("make", MAKERS)
def test_it_asks_for_the_steps_of_so_many_responses(make: Callable[[], TreeAlgorithm], width: int) -> None:
    for seed in range(4):
        state = run(ABMCTS(width, make), seed=seed)
        finished = state.finished()
        assert 1 <= len(finished) <= width
        mean = np.mean([len(state.path(node)) for node in finished])
        asked = sum(len(batch) for batch in state.data["told"])
        deepest = max(len(state.path(node)) for node in range(len(state.nodes)))
        assert len(finished) == width or asked >= int(width * mean) or "closed" in state.data
        assert asked <= width * (deepest + 1)


class Remembers(ByScores):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def tell(self, state: Grown, trial_id: str, result: tuple[int, float]) -> Grown:
        self.told.append(result)
        return super().tell(state, trial_id, result)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_node_is_scored_by_a_response_that_goes_on_from_it(batch: int) -> None:
    for seed in range(8):
        library = Remembers()
        state = run(ABMCTS(8, lambda made=library: made, batch, "last", "rollout"), seed=seed, end=0.2)
        whole: dict[int, int] = {}
        for at, node in enumerate(state.nodes):
            if node.finished:
                whole.setdefault(node.parent, at)  # the first one behind a node is its rollout
        assert {node for node, _ in library.told} >= set(whole) - {0}
        for node, score in library.told:
            judged = node if state.nodes[node].finished else whole[node]
            assert score == pytest.approx(state.value(judged, "last"))


@pytest.mark.parametrize("width", [1, 2, 8, 32])
@pytest.mark.parametrize("make", MAKERS)
def test_rollouts_and_steps_cost_no_more_than_so_many_responses(
    make: Callable[[], TreeAlgorithm], width: int
) -> None:
    for seed in range(4):
        state = run(ABMCTS(width, make, value="rollout"), seed=seed, max_steps=5, end=0.0)
        told = [node for batch in state.data["told"] for node in batch]
        again = len(told) - len(set(told))
        spent = sum(len(node.ends) for node in state.nodes) + again
        assert 5 * (width - 1) < spent <= 5 * width
        assert len(state.finished()) + again >= width


def test_a_search_without_a_response_completes_its_deepest_prefix() -> None:
    class Wider(ByScores):
        """Only ever the root gets children."""

        def ask_batch(self, state: Grown, batch_size: int, actions: list[str]) -> tuple[Grown, list[Asked]]:
            state, made = super().ask_batch(state, batch_size, actions)
            return state, [Asked(one.trial_id, None) for one in made]

    state = run(ABMCTS(4, Wider), end=0.0)
    [finished] = state.finished()
    assert len(state.nodes) == 1 + 8 + 1  # twice the width, and the completion
    parent = state.nodes[finished].parent
    assert state.log_score(parent, "prod") == max(state.log_score(node, "prod") for node in range(1, 9))


def test_a_finished_response_that_is_chosen_counts_as_its_own_child() -> None:
    class Last(ByScores):
        """Always the newest node."""

        def ask_batch(self, state: Grown, batch_size: int, actions: list[str]) -> tuple[Grown, list[Asked]]:
            _, made = super().ask_batch(state, batch_size, actions)
            return state, [Asked(one.trial_id, state.nodes[-1]) for one in made]

    state = run(ABMCTS(3, Last), seed=2)
    [finished] = state.finished()
    depth = len(state.path(finished))
    assert len(state.nodes) == depth + 1
    assert state.data["told"] == [[at] for at in range(1, depth + 1)] + [[finished]] * (2 * depth)


@needs_treequest
@pytest.mark.parametrize("distribution", ["gaussian", "beta"])
def test_the_library_goes_where_the_scores_are(distribution: str) -> None:
    """Of four first letters one is right: chance would go on behind it in a quarter of the steps."""
    config = SearchConfig.model_validate({"ab_mcts": {"distribution": distribution, "value": "prm"}})
    right = [FIRST_LETTER] * 6
    behind = chosen = 0
    for seed in range(12):
        searcher = make_searcher("ab_mcts", config, 16, "last")
        state = run(searcher, seed=seed, step_tokens=1, max_steps=6, end=0.0, score=oracle(right))
        deeper = [node for node in state.nodes[1:] if node.parent]
        firsts = [letters_of(state.nodes[state.path(node.parent)[0]].tokens) for node in deeper]
        behind += sum(first == (FIRST_LETTER,) for first in firsts)
        chosen += len(firsts)
    assert chosen > 100 and behind / chosen > 0.38  # five standard deviations of chance


@needs_treequest
def test_the_library_goes_where_the_rollouts_score() -> None:
    """Responses that begin with one of four letters are right: chance would extend those in a quarter."""

    def score(response: tuple[int, ...]) -> float:
        return float(letters_of(response)[0] == FIRST_LETTER)

    behind = extended = 0
    for seed in range(12):
        searcher = make_searcher("ab_mcts", SearchConfig(), 16, "last")
        state = run(searcher, seed=seed, step_tokens=1, max_steps=6, end=0.0, score=score)
        told = {node for batch in state.data["told"] for node in batch}
        deeper = [state.path(node)[0] for node in told if state.nodes[node].parent]
        behind += sum(letters_of(state.nodes[first].tokens) == (FIRST_LETTER,) for first in deeper)
        extended += len(deeper)
    assert extended > 40 and behind / extended > 0.55  # chance would be 0.25


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package treequest: pip install treequest"):
        make_searcher("ab_mcts", SearchConfig(), 8, "prod")


def test_of_deepest_prefixes_that_score_the_same_the_oldest_is_completed() -> None:
    class Wider(ByScores):
        """Only ever the root gets children."""

        def ask_batch(self, state: Any, batch_size: int, actions: list[str]) -> Any:
            state, made = super().ask_batch(state, batch_size, actions)
            return state, [Asked(one.trial_id, None) for one in made]

    state = run_search(ABMCTS(4, Wider), end=0.0, score=lambda response: 0.5)
    [finished] = state.finished()
    assert state.nodes[finished].parent == 1
