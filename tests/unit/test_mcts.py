"""Monte Carlo tree search."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import exp, inf, log, sqrt
from typing import Any

import pytest

from airls_ray.search.mcts import MCTS, puct_bonus, step_priors, uct_bonus
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Child, Expansion, Finish, SearchState
from tests.unit.search_fakes import FakeTree, letters_of, oracle, random_score, run

VARIANTS = [
    {"selection": "uct"},
    {"selection": "puct"},
    {"selection": "puct", "exploration": 0.0},
    {"selection": "uct", "value": "rollout"},
    {"selection": "puct", "value": "rollout"},
    {"selection": "puct", "parallel": 3},
    {"selection": "uct", "value": "rollout", "parallel": 3},
    {"selection": "puct", "widening_power": 0.7},
    {"selection": "uct", "widening_power": 0.7, "parallel": 3},
    {"selection": "uct", "value": "rollout", "widening_power": 0.7},
]
"""Searches with every setting."""


def step(score: float, finish: Finish = "step", token: int = 0, log_prob: float = -1.0) -> Child:
    """A child of one step of one token."""
    return Child((token,), log_prob, (score,), finish)


def whole(*scores: float) -> Child:
    """A child that is a response to its end, a token a step."""
    ends = tuple(range(1, len(scores) + 1))
    return Child((9,) * len(scores), -1.0, scores, "stop", step_ends=ends)


def tell(searcher: Searcher, state: SearchState, *children: Child) -> None:
    """Answer the round's expansions with these children in turn; tokens 0 become different ones."""
    rest = [
        replace(child, tokens=child.tokens if any(child.tokens) else (10 + at,))
        for at, child in enumerate(children)
    ]
    for ask in searcher.ask(state):
        searcher.tell(state, ask.ticket, [rest.pop(0) for _ in range(ask.want.count)])
    assert not rest


def asked(searcher: Searcher, state: SearchState) -> list[tuple[int, int, bool]]:
    """Node, count and whether it is a rollout."""
    return [(ask.want.node, ask.want.count, ask.want.whole) for ask in searcher.ask(state)]


class EveryLetter(FakeTree):
    """Children of a node are its letters in turn, `max_steps` of them make a response."""

    def answer(self, state: SearchState, expansion: Expansion) -> list[Child]:
        prefix = state.response(expansion.want.node)
        finish: Finish = "stop" if len(prefix) + 1 == self.max_steps else "step"
        return [
            Child((3 + at % self.letters,), -1.0, (self.score((*prefix, 3 + at % self.letters)),), finish)
            for at in range(expansion.want.count)
        ]


def search(searcher: Searcher, tree: FakeTree, seed: int = 0) -> SearchState:
    state = searcher.start(seed)
    while asks := searcher.ask(state):
        for ask in asks:
            searcher.tell(state, ask.ticket, tree.answer(state, ask))
    return state


def closed_nodes(state: SearchState, rollouts: set[int]) -> set[int]:
    """Finished nodes and those with children, all of which are closed."""
    found: set[int] = set()
    children = defaultdict(list)
    for at, one in enumerate(state.nodes):
        children[one.parent].append(at)
    for node in reversed(range(len(state.nodes))):
        first: dict[tuple[int, ...], int] = {}
        expanded = False
        for child in children[node]:
            first.setdefault(state.nodes[child].tokens, child)
            expanded |= child not in rollouts
        below = [child for child in first.values() if child not in rollouts]
        if state.nodes[node].finished or (expanded and all(child in found for child in below)):
            found.add(node)
    return found


# Formulas


def test_uct_by_hand():
    assert uct_bonus(8, 2) == pytest.approx(1.0196669)  # sqrt(2.0794415 / 2)
    assert uct_bonus(3, 0) == inf


def test_puct_by_hand():
    assert puct_bonus(0.25, 16, 3) == pytest.approx(0.25 * (log(19669 / 19652) + 1.25))
    assert puct_bonus(0.5, 19652, 0) == pytest.approx(0.5 * (log(39305 / 19652) + 1.25) * sqrt(19652))


def test_priors_are_a_softmax_of_mean_log_probabilities():
    mcts = MCTS(8, expansion=2)
    state = mcts.start(0)
    long = Child((1, 2, 3, 4), -2.0, (0.5,), "step")
    short = Child((5,), -1.5, (0.5,), "step")
    tell(mcts, state, long, short)
    wanted = [exp(-0.5), exp(-1.5)]
    assert step_priors(state, [1, 2]) == pytest.approx([each / sum(wanted) for each in wanted])


# Statistics and selection on scripted trees


def test_backed_up_means_by_hand():
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.5), step(0.9))
    assert asked(mcts, state) == [(2, 2, False)]
    tell(mcts, state, step(0.3), step(0.6))
    # Node 1: 0.5 + sqrt(ln 4 / 1) = 1.68. Node 2: (0.9 + 0.3 + 0.6) / 3 + sqrt(ln 4 / 3) = 1.28.
    assert asked(mcts, state) == [(1, 2, False)]
    assert state.data["visits"] == [4, 1, 3, 1, 1]
    assert state.data["totals"] == pytest.approx([2.3, 0.5, 1.8, 0.3, 0.6])
    tell(mcts, state, step(0.1), step(0.2))
    # Node 1: 0.8 / 3 + sqrt(ln 6 / 3). Node 2: 0.6 + the same; below it 0.6 beats 0.3.
    assert asked(mcts, state) == [(4, 2, False)]
    assert state.data["totals"] == pytest.approx([2.6, 0.8, 1.8, 0.3, 0.6, 0.1, 0.2])


def test_puct_follows_the_prior_where_values_are_equal():
    mcts = MCTS(8, expansion=2, selection="puct")
    state = mcts.start(0)
    tell(mcts, state, step(0.5, log_prob=-3.0), step(0.5, log_prob=-1.0))
    assert asked(mcts, state) == [(2, 2, False)]


def test_uct_does_not_know_the_prior():
    mcts = MCTS(8, expansion=2, selection="uct")
    state = mcts.start(0)
    tell(mcts, state, step(0.5, log_prob=-3.0), step(0.5, log_prob=-1.0))
    assert asked(mcts, state) == [(1, 2, False)]


def test_a_finished_node_is_counted_again_without_an_expansion():
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last", exploration=0.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.9, "stop"), step(0.5))
    # The purse: eight times the one step of the one response.
    assert asked(mcts, state) == [(2, 2, False)]
    assert state.data["visits"] == [3, 2, 1]
    assert state.data["totals"] == pytest.approx([2.3, 1.8, 0.5])
    tell(mcts, state, step(0.4), step(0.3))
    assert asked(mcts, state) == [(3, 2, False)]
    assert state.data["visits"] == [6, 3, 3, 1, 1]


def test_a_node_whose_children_are_all_finished_is_left_alone():
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last", exploration=0.0, widening=False)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    tell(mcts, state, step(0.9, "stop"), step(0.8, "stop"))
    assert asked(mcts, state) == [(2, 2, False)]
    tell(mcts, state, step(0.1, "stop"), step(0.1, "stop"))
    assert asked(mcts, state) == []
    assert mcts.done(state)
    assert state.data["visits"] == [6, 3, 3, 1, 1, 1, 1]


def test_a_closed_root_is_widened_while_it_has_few_children_for_its_visits():
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last", exploration=0.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    tell(mcts, state, step(0.9, "stop"), step(0.8, "stop"))
    tell(mcts, state, step(0.1, "stop"), step(0.1, "stop"))
    assert asked(mcts, state) == [(ROOT, 2, False)]  # 2 children, 6 visits
    tell(mcts, state, step(0.2, token=20), step(0.3, token=21))
    # The new ones are open, and the search goes on there.
    assert asked(mcts, state) == [(8, 2, False)]


def test_a_closed_root_with_enough_children_leaves_the_widening_to_the_best_one():
    mcts = MCTS(8, expansion=3, selection="uct", aggregate="last", exploration=0.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.2), step(0.7), step(0.9, "stop"))
    tell(mcts, state, step(0.5, "stop", token=7), step(0.5, "stop", token=7), step(0.5, "stop", token=7))
    tell(mcts, state, step(0.6, "stop", token=7), step(0.6, "stop", token=7), step(0.6, "stop", token=7))
    # The root has 3 children and 6 visits. Node 2 is better than node 1; the finished node 3 cannot have any.
    assert asked(mcts, state) == [(2, 3, False)]


def test_a_node_gets_more_children_on_the_way_down_while_it_has_few_for_its_visits():
    mcts = MCTS(20, expansion=2, selection="uct", aggregate="last", exploration=0.0, widening_power=0.9)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    assert asked(mcts, state) == [(1, 2, False)]  # the root has 2 children and 2 visits, 2^0.9 = 1.87
    tell(mcts, state, step(0.8), step(0.7))
    assert asked(mcts, state) == [(ROOT, 2, False)]  # 2 and 4, 4^0.9 = 3.48
    tell(mcts, state, step(0.3, token=20), step(0.2, token=21))
    assert asked(mcts, state) == [(ROOT, 2, False)]  # 4 and 6, 6^0.9 = 5.02
    tell(mcts, state, step(0.3, token=22), step(0.2, token=23))
    assert asked(mcts, state) == [(ROOT, 2, False)]  # 6 and 8, 8^0.9 = 6.5


def test_equal_siblings_count_once():
    mcts = MCTS(8, expansion=3, selection="uct", aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.9, token=7), step(0.9, token=7), step(0.5, token=8))
    assert asked(mcts, state) == [(1, 3, False)]
    assert state.data["visits"] == [2, 1, 0, 1]
    tell(mcts, state, step(0.1, "stop", token=7), step(0.1, "stop", token=7), step(0.1, "stop", token=8))
    # Node 1 has 1.1 / 3 + sqrt(ln 4 / 3), node 3 more; its equal sibling 2 would have had the most.
    assert asked(mcts, state) == [(3, 3, False)]
    assert state.data["visits"] == [4, 3, 0, 1, 1, 0, 1]
    assert mcts.leaves(state) == [4, 6]


def test_equal_steps_of_different_parents_are_different():
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.9, token=7), step(0.5, token=8))
    tell(mcts, state, step(0.9, "stop", token=7), step(0.5, "stop", token=8))
    tell(mcts, state, step(0.9, "stop", token=7), step(0.5, "stop", token=8))
    assert mcts.leaves(state) == [3, 4, 5, 6]


def test_virtual_loss_sends_the_second_leaf_of_a_round_elsewhere():
    mcts = MCTS(20, expansion=2, selection="uct", aggregate="last", exploration=0.0, parallel=2)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.8))
    assert asked(mcts, state) == [(1, 2, False), (2, 2, False)]
    tell(mcts, state, step(0.6), step(0.6), step(0.6), step(0.6))
    # Node 1 has 2.1 / 3 against 2.0 / 3 of node 2; with the loss of its first leaf 2.1 / 4.
    assert asked(mcts, state) == [(3, 2, False), (5, 2, False)]
    assert state.data["visits"][:3] == [6, 3, 3]


def test_leaves_of_a_round_are_different_and_at_most_parallel():
    mcts = MCTS(30, parallel=4)
    tree = FakeTree(letters=3, max_steps=6)
    state = mcts.start(0)
    most = 0
    while asks := mcts.ask(state):
        nodes = [ask.want.node for ask in asks]
        assert len(set(nodes)) == len(nodes) <= 4
        most = max(most, len(nodes))
        for ask in asks:
            mcts.tell(state, ask.ticket, tree.answer(state, ask))
    assert most == 4


# Rollouts


def test_a_leaf_is_rolled_out_first_and_expanded_second():
    mcts = MCTS(8, expansion=2, selection="uct", value="rollout", aggregate="last")
    state = mcts.start(0)
    assert asked(mcts, state) == [(ROOT, 2, False)]
    tell(mcts, state, step(0.9), step(0.1))
    assert asked(mcts, state) == [(1, 1, True)]
    tell(mcts, state, whole(0.7, 0.2))
    assert asked(mcts, state) == [(2, 1, True)]
    assert state.data["visits"] == [1, 1, 0, 0]
    tell(mcts, state, whole(0.7, 0.6))
    # Both have one visit; node 2 came to 0.6, node 1 to 0.2.
    assert asked(mcts, state) == [(2, 2, False)]
    assert state.data["totals"] == pytest.approx([0.8, 0.2, 0.6, 0.0, 0.0])


def test_a_rollout_is_a_response_but_no_child_to_select():
    mcts = MCTS(20, expansion=2, selection="uct", value="rollout", aggregate="last", exploration=0.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.5), step(0.5))
    tell(mcts, state, whole(0.7, 0.9))
    tell(mcts, state, whole(0.7, 0.1))
    tell(mcts, state, step(0.1), step(0.1))
    assert asked(mcts, state) == [(5, 1, True)]
    assert mcts.leaves(state) == [3, 4]
    assert state.data["visits"][3] == 0


def test_a_finished_child_needs_no_rollout():
    mcts = MCTS(8, expansion=2, selection="uct", value="rollout", aggregate="last")
    state = mcts.start(0)
    tell(mcts, state, step(0.9, "stop"), step(0.1))
    assert asked(mcts, state) == [(2, 1, True)]
    assert state.data["totals"] == pytest.approx([0.9, 0.9, 0.0])


# Budget


def work(state: SearchState) -> int:
    """Steps sampled."""
    return sum(len(node.ends) for node in state.nodes[1:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_search_costs_at_most_width_responses_whatever_the_tree(variant: dict[str, Any]):
    for seed in range(40):
        width, steps = 1 + seed % 17, 2 + seed % 4
        mcts = MCTS(width, expansion=1 + seed % 5, **variant)
        state = run(mcts, seed=seed, max_steps=steps, end=(seed % 3) / 4, alone=seed % 2 == 0)
        assert mcts.done(state)
        assert 1 <= len(mcts.leaves(state)) <= width  # equal ones are one
        assert work(state) <= width * steps


def test_equal_responses_take_one_place_of_the_width():
    states = [run(MCTS(8), seed=seed, letters=2, step_tokens=1, max_steps=3, end=0.0) for seed in range(10)]
    assert any(len(state.finished()) > 8 for state in states)
    assert all(len(MCTS(8).leaves(state)) <= 8 for state in states)


def test_a_search_uses_the_steps_of_its_width_when_nothing_is_closed():
    state = run(MCTS(16), letters=50, max_steps=5, end=0.0)
    assert work(state) == 16 * 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_search_uses_the_steps_of_its_width_when_all_is_closed(variant: dict[str, Any]):
    tree = {"letters": 3, "step_tokens": 1, "max_steps": 3, "end": 0.0, "alone": False}
    spent = [work(run(MCTS(16, expansion=2, widening=wide, **variant), **tree)) for wide in (True, False)]
    assert spent[0] >= 16 * 3 - 6
    assert spent[1] < spent[0]


def test_a_policy_that_says_one_thing_alone_ends_the_search_in_time():
    state = run(MCTS(16), letters=1, step_tokens=1, max_steps=3, end=0.0, alone=False)
    assert len(MCTS(16).leaves(state)) == 1
    assert work(state) <= 16 * 3


def test_the_price_is_that_of_the_mean_response():
    for seed in range(20):
        state = run(MCTS(16), seed=seed, letters=50, max_steps=8, end=0.3)
        lengths = [state.depth(node) for node in state.finished()]
        if len(lengths) < 16:
            mean = sum(lengths) / len(lengths)
            assert work(state) > 16 * mean - 4


def test_a_width_of_one_is_one_sample():
    for value in ("prm", "rollout"):
        state = run(MCTS(1, value=value), max_steps=5, end=0.0)
        assert len(state.finished()) == 1
        assert work(state) == 5


def test_a_search_that_runs_short_goes_straight_down():
    # Scores fall with depth, so that selection alone would stay at the top of the tree.
    state = run(MCTS(6, expansion=3), letters=50, max_steps=9, end=0.0, score=lambda seen: 0.5 ** len(seen))
    assert state.finished()
    assert work(state) <= 6 * 9


# Whole searches


@pytest.mark.parametrize("variant", [one for one in VARIANTS if not {"value", "widening_power"} & set(one)])
def test_it_finds_every_response_of_a_small_tree_that_it_can_afford(variant: dict[str, Any]):
    mcts = MCTS(27, expansion=3, **variant)
    state = search(mcts, EveryLetter(letters=3, max_steps=3))
    found = {tuple(state.response(node)) for node in mcts.leaves(state)}
    assert found == {(a, b, c) for a in (3, 4, 5) for b in (3, 4, 5) for c in (3, 4, 5)}
    assert len(state.nodes) == 1 + 3 + 9 + 27


@pytest.mark.parametrize("variant", VARIANTS)
def test_closed_nodes_are_asked_for_only_when_all_are_closed(variant: dict[str, Any]):
    closed = 0
    for seed in range(15):
        mcts = MCTS(24, expansion=3, **variant)
        tree = FakeTree(letters=2, step_tokens=1, max_steps=4, end=0.4)
        state = mcts.start(seed)
        rollouts: set[int] = set()
        while asks := mcts.ask(state):
            now = closed_nodes(state, rollouts)
            assert ROOT in now or not now & {ask.want.node for ask in asks}
            closed += len([node for node in now if not state.nodes[node].finished])
            rolled = {ask.want.node for ask in asks if ask.want.whole}
            for ask in asks:
                mcts.tell(state, ask.ticket, tree.answer(state, ask))
            rollouts |= {node for node in state.last if state.nodes[node].parent in rolled}
    assert closed > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_visits_are_sums_over_children(variant: dict[str, Any]):
    state = run(MCTS(24, **variant), seed=2, max_steps=5)
    visits, totals = state.data["visits"], state.data["totals"]
    rollouts = set(state.data["rollouts"])
    for node in range(len(state.nodes)):
        below = [child for child in state.children(node) if child not in rollouts]
        own = visits[node] - sum(visits[child] for child in below)
        if below:
            assert own == (node != ROOT)
        assert 0.0 <= totals[node] <= visits[node]


def test_an_oracle_leads_to_the_solution():
    for hidden in [(3, 3, 3, 3), (6, 4, 3, 5), (6, 6, 6, 6)]:
        for variant in VARIANTS[:3]:
            tree = EveryLetter(letters=4, max_steps=4, score=oracle(hidden))
            state = search(MCTS(8, **variant), tree)
            assert hidden in {letters_of(state.response(node)) for node in state.finished()}


def test_good_scores_find_better_responses_than_bad_ones():
    """A PRM that is right about the last step beats one that is wrong about it, at the same price."""

    def best(sign: float) -> float:
        found = []
        for seed in range(20):
            state = run(
                MCTS(8, aggregate="last"),
                seed=seed,
                letters=9,
                max_steps=4,
                end=0.0,
                score=lambda seen: 0.5 + sign * (letters_of(seen)[-1] - 7) / 10,
            )
            found.append(max(sum(letters_of(state.response(node))) for node in state.finished()))
        return sum(found)

    assert best(1.0) > 1.3 * best(-1.0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_in_any_order_and_twice_give_the_same_search(variant: dict[str, Any]):
    mcts = MCTS(12, **variant)
    assert run(mcts, seed=3, shuffle=7).to_json() == run(mcts, seed=3).to_json()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_search_saved_after_every_answer_goes_on_as_it_would_have(variant: dict[str, Any]):
    mcts = MCTS(12, **variant)
    assert run(mcts, seed=3, save=True) == run(mcts, seed=3)


def test_a_search_stopped_in_the_middle_has_the_leaves_found_so_far():
    mcts = MCTS(20, value="rollout")
    state = run(mcts, seed=1, rounds=4, score=random_score)
    mcts.stop(state)
    assert mcts.leaves(state) == state.finished() != []


def test_a_closed_root_with_just_the_square_root_of_its_visits_has_enough_children() -> None:
    mcts = MCTS(8, expansion=2, selection="uct", aggregate="last", exploration=0.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1, "stop"))
    tell(mcts, state, step(0.9, "stop"), step(0.8, "stop"))
    assert asked(mcts, state) == [(1, 2, False)]  # the root has 2 children and 4 visits


def test_a_node_with_just_so_many_children_gets_no_more_on_the_way_down() -> None:
    mcts = MCTS(20, expansion=2, selection="uct", aggregate="last", exploration=0.0, widening_power=1.0)
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    assert asked(mcts, state) == [(1, 2, False)]  # 2 children, 2 visits


def test_a_rollout_is_paid_only_from_its_leaf_on() -> None:
    """Of 2 x 4 steps 2 + 3 are spent, and a response from the first step on takes the 3 that are left."""

    mcts = MCTS(2, expansion=2, selection="uct", aggregate="last", value="rollout")
    state = mcts.start(0)
    tell(mcts, state, step(0.9), step(0.1))
    tell(mcts, state, whole(0.5, 0.5, 0.5))
    assert asked(mcts, state) == [(2, 1, True)]
