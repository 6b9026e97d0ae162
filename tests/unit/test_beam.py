"""Best-of-N, beam search, DVTS and early rejection on random trees and by hand."""

from __future__ import annotations

import pytest

from airls_ray.search.beam import DVTS, Beam, best_prefixes, spread
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Node, SearchState
from tests.unit.search_fakes import FakeTree, letters_of, oracle, run

TREES: list[Searcher] = [
    Beam(8, 4),
    Beam(7, 3, distinct=False),
    DVTS(8, 4),
    DVTS(10, 4),
    EarlyRejection(8, 4, tokens=1),
]


def state_of(*nodes: Node) -> SearchState:
    return SearchState(0, nodes=[Node(-1), *nodes])


@pytest.mark.parametrize("searcher", TREES)
@pytest.mark.parametrize("seed", range(5))
def test_the_width_bounds_finished_responses(searcher: Searcher, seed: int) -> None:
    state = run(searcher, seed=seed, max_steps=5, end=0.3)
    width = searcher.width  # type: ignore[attr-defined]
    assert 1 <= len(searcher.leaves(state)) <= width


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_fills_its_width(seed: int) -> None:
    state = run(Beam(8, 4), seed=seed, max_steps=5)
    assert len(state.finished()) == 8


@pytest.mark.parametrize("searcher", TREES)
def test_a_round_expands_the_width_less_what_is_finished(searcher: Searcher) -> None:
    if isinstance(searcher, EarlyRejection):
        pytest.skip("its rounds are of two kinds")
    state = searcher.start(3)
    width = searcher.width  # type: ignore[attr-defined]
    from tests.unit.search_fakes import FakeTree

    tree = FakeTree(max_steps=5)
    while asks := searcher.ask(state):
        asked = sum(ask.want.count for ask in asks)
        live = {ask.want.node for ask in asks}
        assert asked <= width - len(state.finished())
        assert isinstance(searcher, DVTS) or asked == width - len(state.finished())
        assert not any(state.nodes[node].finished for node in live)
        for ask in asks:
            searcher.tell(state, ask.ticket, tree.answer(state, ask))


@pytest.mark.parametrize("seed", range(3))
def test_best_of_n_is_a_beam_of_one_level_with_expansion_one(seed: int) -> None:
    samples = run(BestOfN(6), seed=seed, max_steps=1)
    beam = run(Beam(6, 1, distinct=False), seed=seed, max_steps=1)
    assert [samples.response(leaf) for leaf in samples.finished()] == [
        beam.response(leaf) for leaf in beam.finished()
    ]


@pytest.mark.parametrize("seed", range(5))
def test_early_rejection_with_endless_patience_is_beam_search(seed: int) -> None:
    patient = run(EarlyRejection(8, 4, tokens=10**6), seed=seed, max_steps=5)
    beam = run(Beam(8, 4), seed=seed, max_steps=5)
    assert patient.nodes == beam.nodes


def test_early_rejection_finishes_only_the_steps_that_it_keeps() -> None:
    state = run(EarlyRejection(8, 4, tokens=1), seed=1, step_tokens=3, max_steps=3)
    cut = [at for at, node in enumerate(state.nodes) if node.finish == "partial"]
    finished = [at for at in cut if any(True for _ in state.children(at))]
    assert 0 < len(finished) <= len(cut) // 2


def test_dvts_with_one_subtree_follows_the_best_prefix() -> None:
    state = run(DVTS(4, 4), seed=2, max_steps=5, end=0.0)
    parents = {node.parent for node in state.nodes[1:]}
    for node in state.nodes[1:]:
        if node.parent in parents:
            level = [at for at in state.children(node.parent)]
            expanded = [at for at in level if at in parents]
            best = max(state.value(at, "prod") for at in level)
            assert [state.value(at, "prod") for at in expanded] in ([], [best])


def test_dvts_never_mixes_its_subtrees() -> None:
    state = run(DVTS(8, 4), seed=4, max_steps=4, end=0.0)
    first_level = list(state.children(0))
    tops = {state.path(leaf)[0] for leaf in state.finished()}
    assert len(tops & set(first_level[:4])) == 1
    assert len(tops & set(first_level[4:])) == 1


@pytest.mark.parametrize("searcher", TREES)
def test_an_oracle_leads_to_the_solution(searcher: Searcher) -> None:
    path = (3, 4, 3, 4)
    state = run(searcher, seed=5, letters=2, step_tokens=1, max_steps=4, end=0.0, score=oracle(path))
    leaves = searcher.leaves(state)
    best = max(leaves, key=lambda leaf: state.value(leaf, "prod"))
    assert letters_of(state.response(best)) == path


@pytest.mark.parametrize("searcher", [*TREES, BestOfN(5)])
def test_answers_may_come_in_any_order_and_twice(searcher: Searcher) -> None:
    assert run(searcher, seed=6, shuffle=1) == run(searcher, seed=6)


@pytest.mark.parametrize("searcher", TREES)
def test_a_saved_state_goes_on_as_if_it_had_not_been_saved(searcher: Searcher) -> None:
    assert run(searcher, seed=7, save=True) == run(searcher, seed=7)


def test_equal_prefixes_are_kept_once_unless_told() -> None:
    state = state_of(
        Node(0, (5, 2), scores=(0.9,)), Node(0, (5, 2), scores=(0.9,)), Node(0, (6, 2), scores=(0.1,))
    )
    assert best_prefixes(state, [1, 2, 3], 2, "prod") == [1, 3]
    assert best_prefixes(state, [1, 2, 3], 2, "prod", distinct=False) == [1, 2]


def test_of_equal_values_the_older_prefix_is_kept() -> None:
    state = state_of(Node(0, (5,), scores=(0.5,)), Node(0, (6,), scores=(0.5,)))
    assert best_prefixes(state, [2, 1], 1, "prod") == [1]


def test_a_prefix_is_worth_its_path() -> None:
    state = state_of(Node(0, (5,), scores=(0.5,)), Node(1, (6,), scores=(0.5,)), Node(0, (7,), scores=(0.3,)))
    assert state.value(2, "prod") == pytest.approx(0.25)
    assert state.value(2, "min") == 0.5
    assert best_prefixes(state, [2, 3], 1, "prod") == [3]


def test_what_is_left_over_goes_to_the_better_prefixes() -> None:
    assert [(want.node, want.count) for want in spread([7, 4, 9], 8)] == [(7, 3), (4, 3), (9, 2)]
    assert [(want.node, want.count) for want in spread([7, 4, 9], 2)] == [(7, 1), (4, 1)]
    assert spread([], 5) == []


def test_a_score_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        run(BestOfN(1), score=lambda response: 1.5)


def test_a_kept_step_that_was_over_goes_on_beside_those_that_had_to_be_finished() -> None:
    """Two of four are kept: one whose step is whole already, and one that was cut."""
    searcher = EarlyRejection(4, 2, tokens=2)
    state = searcher.start(0)
    scores, ends = (0.9, 0.8, 0.1, 0.2), ("step", "partial", "partial", "step")
    [ask] = searcher.ask(state)
    children = [Child((3 + at, 9), -1.0, (one,), ends[at]) for at, one in enumerate(scores)]  # type: ignore[arg-type]
    searcher.tell(state, ask.ticket, children)
    [ask] = searcher.ask(state)
    assert (ask.want.node, ask.want.count, ask.want.max_tokens) == (2, 1, None)
    searcher.tell(state, ask.ticket, [Child((7, 2), -1.0, (0.7,), "step")])
    assert [(one.want.node, one.want.count, one.want.max_tokens) for one in searcher.ask(state)] == [
        (1, 2, 2), (5, 2, 2),
    ]  # fmt: skip


def test_every_round_looks_ahead() -> None:
    searcher, tree, rounds = Beam(4, 2, lookahead=2), FakeTree(max_steps=4, end=0.0), 0
    state = searcher.start(3)
    while asks := searcher.ask(state):
        rounds += 1
        assert {ask.want.lookahead for ask in asks} == {2}
        for ask in asks:
            searcher.tell(state, ask.ticket, tree.answer(state, ask))
    assert rounds == 4
