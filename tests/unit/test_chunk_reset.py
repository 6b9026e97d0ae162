"""Chunk reset (StepWiser, arXiv 2508.19229, section 4.4) against the loop that the paper describes."""

from __future__ import annotations

from typing import Any

import pytest

from airls_ray.search.chunk_reset import ChunkReset
from airls_ray.search.tree import ROOT, Child, Expansion, Node, SearchState, Want
from airls_ray.seeding import derive_seed
from tests.unit.search_fakes import END, FakeTree, Score, oracle, random_score, run

ORACLE = oracle([4, 3, 5])


def chain_by_hand(seed: int, threshold: float, attempts: int, tree: FakeTree) -> tuple[list[int], int]:
    """The paper's loop for one chain: response and number of samples."""
    response: list[int] = []
    samples = 0
    finish = "step"
    while finish not in ("stop", "length"):
        tried: list[Child] = []
        state = SearchState(0)
        if response:
            state.nodes.append(Node(ROOT, tuple(response), scores=(0.5,)))
        while True:
            want = Want(len(state.nodes) - 1, 1)
            [child] = tree.answer(state, Expansion(0, want, derive_seed(seed, "expansion", samples)))
            samples += 1
            tried.append(child)
            if child.scores[-1] >= threshold or len(tried) == attempts:
                break
        accepted = [one for one in tried if one.scores[-1] >= threshold]
        best = accepted[0] if accepted else max(tried, key=lambda one: one.scores[-1])
        response += best.tokens
        finish = best.finish
    return response, samples


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("threshold", "attempts"), [(0.5, 5), (0.9, 3), (1.0, 4), (0.0, 5), (0.7, 1)])
@pytest.mark.parametrize("alone", [False, True])
def test_one_chain_is_the_loop_of_the_paper(seed: int, threshold: float, attempts: int, alone: bool) -> None:
    searcher = ChunkReset(1, threshold, attempts)
    state = run(searcher, seed=seed, max_steps=6, alone=alone)
    wanted, samples = chain_by_hand(seed, threshold, attempts, FakeTree(max_steps=6, alone=alone))
    [leaf] = searcher.leaves(state)
    assert state.response(leaf) == wanted
    assert len(state.nodes) - 1 == samples == state.rounds


@pytest.mark.parametrize("seed", range(6))
def test_chains_are_as_many_as_the_width_and_none_has_more_than_its_attempts(seed: int) -> None:
    searcher = ChunkReset(7, 0.8, attempts=3)
    state = run(searcher, seed=seed, max_steps=5)
    leaves = searcher.leaves(state)
    assert len(leaves) == len(set(leaves)) == 7
    steps = sum(len(state.path(leaf)) for leaf in leaves)
    assert steps <= len(state.nodes) - 1 <= 3 * steps


def test_a_threshold_of_zero_samples_each_chain_once() -> None:
    searcher = ChunkReset(5, 0.0)
    state = run(searcher, seed=1)
    assert searcher.leaves(state) == state.finished()
    assert len(state.nodes) - 1 == sum(len(state.path(leaf)) for leaf in searcher.leaves(state))


def test_told_in_any_order_and_saved_after_every_answer_it_is_the_same_search() -> None:
    searcher = ChunkReset(4, 0.6)
    plain = run(searcher, seed=2)
    mixed = run(searcher, seed=2, shuffle=5, save=True)
    assert plain.to_json() == mixed.to_json()


@pytest.mark.parametrize(("score", "solved"), [(ORACLE, 20), (random_score, 0)])
def test_resets_by_the_truth_find_what_a_plain_chain_misses(score: Score, solved: int) -> None:
    found = 0
    for seed in range(20):
        searcher = ChunkReset(1, 1.0, attempts=60)
        state = run(searcher, seed=seed, letters=4, step_tokens=1, max_steps=3, end=0.0, score=score)
        [leaf] = searcher.leaves(state)
        found += ORACLE(tuple(state.response(leaf))) == 1.0
    assert found >= solved if solved else found < 5


def test_a_search_that_is_stopped_keeps_what_its_last_round_finished() -> None:
    """The limit is found before the next plan: the round's children are judged all the same."""
    searcher = ChunkReset(2, threshold=0.5, attempts=5)
    state = searcher.start(0)
    [ask] = searcher.ask(state)
    good = Child((3, END), -1.0, (0.7,), "stop")
    searcher.tell(state, ask.ticket, [good, Child((4, END), -1.0, (0.2,), "stop")])
    searcher.stop(state)
    assert searcher.leaves(state) == [1, 2]  # the second chain has no better attempt


def test_a_rejected_end_is_no_answer() -> None:
    searcher = ChunkReset(1, threshold=0.5, attempts=2)
    state = searcher.start(0)
    for scores in (0.1, 0.3):
        [ask] = searcher.ask(state)
        assert (ask.want.node, ask.want.count) == (ROOT, 1)
        searcher.tell(state, ask.ticket, [Child((3, END), -1.0, (scores,), "stop")])
    assert searcher.ask(state) == [] and searcher.leaves(state) == [2]
    assert state.finished() == [1, 2]


def nodes_after(searcher: Any, *scores: float) -> list[int]:
    """What one chain asks for at first and after steps of such scores."""
    state = searcher.start(0)
    found = []
    for number, score in enumerate([*scores, None]):
        [ask] = searcher.ask(state)
        found.append(ask.want.node)
        if score is not None:
            searcher.tell(state, ask.ticket, [Child((3 + number,), -1.0, (score,), "step")])
    return found


@pytest.mark.parametrize("score", [0.5, 0.35, 0.03, 0.16])
def test_a_score_that_is_just_the_threshold_is_accepted(score: float) -> None:
    """Values are powers of e of logarithms: 0.35 comes back as a little less."""
    assert nodes_after(ChunkReset(1, threshold=score), score) == [ROOT, 1]


def test_of_attempts_that_score_the_same_the_first_is_accepted() -> None:
    assert nodes_after(ChunkReset(1, threshold=0.5, attempts=3), 0.25, 0.25, 0.25) == [ROOT, ROOT, ROOT, 1]
