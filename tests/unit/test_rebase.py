"""REBASE: how the width is shared out, and the search."""

from __future__ import annotations

from math import exp, inf

import numpy as np
import pytest
from numpy.typing import NDArray

from airls_ray.search.allocation import rebase_counts
from airls_ray.search.rebase import REBASE
from airls_ray.search.tree import Child, SearchState
from tests.unit.search_fakes import STEP, run

SEEDS = range(12)


def counts(scores: list[float], width: int, temperature: float = 0.2) -> list[int]:
    return rebase_counts(np.array(scores), width, temperature).tolist()


def random_scores(seed: int) -> NDArray[np.float64]:
    """Scores in all regimes: spread, equal in groups, near 0 and 1, huge."""
    rng = np.random.default_rng(seed)
    scores = rng.random(int(rng.integers(1, 40)))
    return [scores, np.round(scores, 1), np.round(scores), (scores - 0.5) * 1e300][seed % 4]


@pytest.mark.parametrize(
    ("width", "wanted"), [(7, [1, 2, 4]), (8, [1, 2, 5]), (9, [1, 3, 5]), (0, [0, 0, 0])]
)
def test_shares_of_one_two_and_four_sevenths(width: int, wanted: list[int]) -> None:
    assert counts([0.0, np.log(2.0), np.log(4.0)], width, 1.0) == wanted


def test_every_count_is_less_than_one_from_its_share() -> None:
    for seed in range(200):
        scores = np.random.default_rng(seed).random(1 + seed % 17).tolist()
        total = sum(exp(score / 0.2) for score in scores)
        for score, count in zip(scores, counts(scores, 1 + 3 * seed), strict=True):
            assert abs(count - (1 + 3 * seed) * exp(score / 0.2) / total) < 1.0


@pytest.mark.parametrize("temperature", [5e-324, 1e-12, 0.01, 0.2, 1.0, 1e9, 1e308, inf])
def test_the_sum_is_exactly_the_width(temperature: float) -> None:
    for seed in range(200):
        found = rebase_counts(random_scores(seed), seed * seed, temperature)
        assert found.sum() == seed * seed
        assert found.min() >= 0


@pytest.mark.parametrize("temperature", [0.2, inf])
def test_scores_at_the_ends_of_float64_are_shared_out(temperature: float) -> None:
    found = counts([-1.7e308, 1.7e308, 0.0], 4, temperature)
    assert found == ([0, 4, 0] if temperature < inf else [1, 2, 1])


def test_an_infinite_temperature_shares_out_evenly_and_the_rest_to_the_best() -> None:
    assert counts([0.1, 0.4, 0.3, 0.2], 10, inf) == [2, 3, 3, 2]


def test_a_high_temperature_shares_out_as_an_infinite_one() -> None:
    for seed in SEEDS:
        scores = np.random.default_rng(seed).random(9).tolist()
        assert counts(scores, 100, 1e9) == counts(scores, 100, inf)


def test_a_low_temperature_gives_the_best_all() -> None:
    assert counts([0.3, 0.8, 0.79], 16, 1e-6) == [0, 16, 0]
    assert counts([0.3, 0.8, 0.8], 5, 1e-6) == [0, 3, 2]


def test_equal_scores_and_a_small_width_give_the_first_one_each() -> None:
    assert counts([0.7] * 6, 4) == [1, 1, 1, 1, 0, 0]


def test_a_higher_score_never_gets_less() -> None:
    for seed in SEEDS:
        scores = np.sort(np.random.default_rng(seed).random(20))
        assert (np.diff(rebase_counts(scores, 37, 0.2)) >= 0).all()


@pytest.mark.parametrize(
    ("scores", "width", "temperature"),
    [([], 4, 0.2), ([0.1, np.nan], 4, 0.2), ([0.1, inf], 4, 0.2), ([0.1], -1, 0.2), ([0.1], 4, 0.0)],
)
def test_what_cannot_be_shared_out_is_an_error(scores: list[float], width: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="must"):
        counts(scores, width, temperature)


def parents(state: SearchState) -> dict[int, int]:
    """Node and how many children it has."""
    tally: dict[int, int] = {}
    for node in state.nodes[1:]:
        tally[node.parent] = tally.get(node.parent, 0) + 1
    return tally


@pytest.mark.parametrize("width", [1, 5, 16])
def test_as_many_responses_finish_as_the_width_has(width: int) -> None:
    for seed in SEEDS:
        state = run(REBASE(width), seed=seed, alone=seed % 2 == 0)
        assert state.over
        assert len(state.finished()) == width


def test_every_round_expands_the_width_less_what_has_finished() -> None:
    searcher = REBASE(12)
    for seed in SEEDS:
        for rounds in range(1, 5):
            before, after = (run(searcher, seed=seed, rounds=at) for at in (rounds - 1, rounds))
            if after.rounds == rounds:
                assert len(after.last) == 12 - len(before.finished())


def test_an_infinite_temperature_is_plain_sampling() -> None:
    for seed in SEEDS:
        tally = parents(run(REBASE(8, temperature=inf), seed=seed))
        assert tally.pop(0) == 8
        assert set(tally.values()) <= {1}


def test_a_low_temperature_expands_only_the_best_of_each_level() -> None:
    for seed in SEEDS:
        state = run(REBASE(8, temperature=1e-9), seed=seed, step_tokens=3, letters=20)
        for node in parents(state):
            if node:
                depth = state.depth(node)
                level = [at for at in range(1, len(state.nodes)) if state.depth(at) == depth]
                scores = [state.nodes[at].scores[-1] for at in level if not state.nodes[at].finished]
                assert state.nodes[node].scores[-1] == max(scores)


def told(scores: list[tuple[float, float]]) -> SearchState:
    """A search whose prefixes have two steps each, with these scores."""
    searcher = REBASE(len(scores), temperature=inf)
    state = searcher.start(0)
    for step in (0, 1):
        for at, expansion in enumerate(searcher.ask(state)):
            given = scores[at : at + 1] if step else scores
            children = [Child((3 + at, STEP), -1.0, (score[step],), "step") for score in given]
            searcher.tell(state, expansion.ticket, children)
    return state


def test_prefixes_compete_by_their_last_step() -> None:
    state = told([(0.1, 0.9), (0.9, 0.5)])
    assert [want.node for want in REBASE(2, temperature=1e-9).plan(state)] == [3]


def test_prefixes_can_compete_by_all_their_steps() -> None:
    state = told([(0.1, 0.9), (0.9, 0.5)])
    assert [want.node for want in REBASE(2, temperature=1e-9, score="prod").plan(state)] == [4]


def test_counts_follow_the_temperature() -> None:
    state = told([(0.5, 0.8), (0.5, 0.6), (0.5, 0.8), (0.5, 0.2)])
    wants = REBASE(4, temperature=0.2).plan(state)  # shares 1.67, 0.61, 1.67, 0.08
    assert [(want.node, want.count) for want in wants] == [(5, 2), (7, 2)]
    wants = REBASE(4, temperature=2.0).plan(state)  # shares 1.10, 0.99, 1.10, 0.81
    assert [(want.node, want.count) for want in wants] == [(5, 1), (6, 1), (7, 1), (8, 1)]


def test_answers_may_come_in_any_order_and_twice() -> None:
    for seed in SEEDS:
        assert run(REBASE(8), seed=seed, shuffle=seed) == run(REBASE(8), seed=seed)


def test_a_search_goes_on_from_a_saved_state() -> None:
    for seed in SEEDS:
        assert run(REBASE(8), seed=seed, save=True) == run(REBASE(8), seed=seed)
