"""The particle filter and particle Gibbs."""

from __future__ import annotations

from itertools import product
from math import exp, log, prod
from typing import Any

import numpy as np
import pytest

from airls_ray.search.particles import ParticleFilter, ParticleGibbs
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Child, Finish, SearchState
from tests.unit.search_fakes import END, FIRST_LETTER, STEP, FakeTree, letters_of, oracle, random_score, run


def step(score: float, finish: Finish = "step", token: int = 5) -> Child:
    return Child((token,), -1.0, (score,), finish)


def tell(searcher: Searcher, state: SearchState, *children: Child) -> None:
    """Answer the round's expansions with these children in turn."""
    rest = list(children)
    for ask in searcher.ask(state):
        searcher.tell(state, ask.ticket, [rest.pop(0) for _ in range(ask.want.count)])
    assert not rest


def nodes_asked(searcher: Searcher, state: SearchState) -> list[int]:
    return [ask.want.node for ask in searcher.ask(state) for _ in range(ask.want.count)]


SMALL = {"letters": 2, "step_tokens": 1, "max_steps": 3, "end": 0.3}


def all_responses() -> dict[tuple[int, ...], float]:
    """Every response of the policy of `SMALL` and its probability."""
    found = {}
    for steps in range(1, 4):
        for letters in product((FIRST_LETTER, FIRST_LETTER + 1), repeat=steps):
            prefix = [token for letter in letters for token in (letter, STEP)]
            going = 0.5**steps * 0.7 ** (steps - 1)
            found[*prefix[:-1], END] = going * 0.3
            if steps == 3:
                found[tuple(prefix)] = going * 0.7
    return found


def product_of_steps(response: tuple[int, ...]) -> float:
    """Product of the step scores."""
    ends = [at + 1 for at, token in enumerate(response) if token in (STEP, END)]
    return prod(random_score(response[:end]) for end in ends)


def target(temperature: float) -> dict[tuple[int, ...], float]:
    """Policy times odds of the score, not normalised, from the list of all responses."""
    found = {}
    for response, probability in all_responses().items():
        score = product_of_steps(response)
        found[response] = probability * (score / (1 - score)) ** (1 / temperature)
    return found


def test_the_list_of_all_responses_is_complete():
    assert sum(all_responses().values()) == pytest.approx(1.0)


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize("ess_threshold", [0.0, 0.7, 1.0])
def test_weights_estimate_the_target_without_bias(resampling: Any, ess_threshold: float):
    filter_ = ParticleFilter(4, temperature=1.5, ess_threshold=ess_threshold, resampling=resampling)
    wanted = target(1.5)
    sums = []
    for seed in range(600):
        state = run(filter_, seed=seed, **SMALL)
        found = [(state.response(node), exp(each)) for node, each in filter_.log_weights(state).items()]
        total = sum(weight for _, weight in found) / 4
        long = sum(weight for response, weight in found if len(response) == 6) / 4
        first = sum(weight for response, weight in found if response[0] == FIRST_LETTER) / 4
        sums.append((total, long, first))
    exact = (
        sum(wanted.values()),
        sum(weight for response, weight in wanted.items() if len(response) == 6),
        sum(weight for response, weight in wanted.items() if response[0] == FIRST_LETTER),
    )
    error = np.std(sums, axis=0, ddof=1) / len(sums) ** 0.5
    assert (np.abs(np.mean(sums, axis=0) - exact) < 3.5 * error).all()
    assert (error < 0.1 * np.array(exact)).all()


def test_some_of_those_searches_resample_while_others_are_finished():
    filter_ = ParticleFilter(4, temperature=1.5, ess_threshold=0.7)
    states = [run(filter_, seed=seed, **SMALL) for seed in range(20)]
    both = [
        state
        for state in states
        if "restarts" in state.data and len({len(state.path(node)) for node in state.finished()}) > 1
    ]
    assert len(both) > 5


def test_without_resampling_weights_are_the_odds_of_whole_responses():
    filter_ = ParticleFilter(8, temperature=0.5, ess_threshold=0.0)
    state = run(filter_, **SMALL)
    for node, found in filter_.log_weights(state).items():
        score = product_of_steps(tuple(state.response(node)))
        assert found == pytest.approx(2 * log(score / (1 - score)))


def test_weights_restart_from_the_value_at_resampling_by_hand():
    filter_ = ParticleFilter(2, ess_threshold=0.9)
    state = filter_.start(0)
    tell(filter_, state, step(0.8), step(0.2))
    survivors = nodes_asked(filter_, state)  # odds 4 and 1/4: effective size 1.12 of 2
    tell(filter_, state, *[step(0.5, "stop")] * 2)
    at_survival, after = {1: 4.0, 2: 0.25}, {1: 0.4 / 0.6, 2: 0.1 / 0.9}
    mean = (4 + 0.25) / 2
    wanted = [log(mean * after[node] / at_survival[node]) for node in survivors]
    assert list(filter_.log_weights(state).values()) == pytest.approx(wanted)


@pytest.mark.parametrize("make", [ParticleFilter, ParticleGibbs])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_with_constant_scores_every_particle_goes_on_once(make: Any, resampling: Any):
    searcher = make(12, ess_threshold=1.0, resampling=resampling)
    state = run(searcher, score=lambda response: 0.3, max_steps=6)
    parents = [node.parent for node in state.nodes[1:] if node.parent != ROOT]
    unfinished = [at for at, node in enumerate(state.nodes) if at and not node.finished]
    assert sorted(parents) == unfinished
    assert len(state.finished()) == 12


@pytest.mark.parametrize("make", [ParticleFilter, ParticleGibbs])
@pytest.mark.parametrize("alone", [False, True])
def test_the_width_is_conserved_whatever_the_tree(make: Any, alone: bool):
    for seed in range(30):
        width = 1 + seed % 11
        state = run(make(width), seed=seed, end=(seed % 4) / 4, max_steps=5, alone=alone)
        assert len(state.finished()) == width
        assert len(state.nodes) - 1 <= width * 5


def test_a_finished_particle_keeps_its_place_however_bad_it_is():
    filter_ = ParticleFilter(4, ess_threshold=1.0)
    state = filter_.start(0)
    tell(filter_, state, step(0.001, "stop"), step(0.99), step(0.01), step(0.01))
    assert len(nodes_asked(filter_, state)) == 3
    assert set(nodes_asked(filter_, state)) <= {2, 3, 4}
    tell(filter_, state, *[step(0.9, "stop")] * 3)
    assert filter_.leaves(state) == [1, 5, 6, 7]


def test_a_finished_particle_is_not_copied_however_good_it_is():
    filter_ = ParticleFilter(3, ess_threshold=1.0)
    state = filter_.start(0)
    tell(filter_, state, step(1.0, "stop"), step(0.5), step(0.5))
    assert nodes_asked(filter_, state) == [2, 3]


def test_resampling_prefers_good_prefixes():
    filter_ = ParticleFilter(8)
    state = filter_.start(0)
    tell(filter_, state, step(0.9999), *[step(0.01)] * 7)
    assert nodes_asked(filter_, state) == [1] * 8


def test_a_high_temperature_ignores_the_scores():
    filter_ = ParticleFilter(8, temperature=1e6)
    state = filter_.start(0)
    tell(filter_, state, step(0.9999), *[step(0.01)] * 7)
    assert nodes_asked(filter_, state) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_oracle_leads_to_the_solution():
    hidden = (4, 6, 3)
    for seed in range(10):
        state = run(
            ParticleFilter(32),
            seed=seed,
            letters=4,
            step_tokens=1,
            max_steps=3,
            end=0.0,
            score=oracle(hidden),
        )
        assert hidden in {letters_of(state.response(node)) for node in state.finished()}


@pytest.mark.parametrize("make", [ParticleFilter, ParticleGibbs])
def test_answers_in_any_order_and_twice_give_the_same_search(make: Any):
    searcher = make(12)
    assert run(searcher, seed=3, shuffle=7).to_json() == run(searcher, seed=3).to_json()


@pytest.mark.parametrize("make", [ParticleFilter, ParticleGibbs])
def test_a_search_saved_after_every_answer_goes_on_as_it_would_have(make: Any):
    searcher = make(12, ess_threshold=0.9)
    saved, plain = run(searcher, seed=3, save=True), run(searcher, seed=3)
    assert plain.data["restarts"]
    assert saved == plain


# Particle Gibbs


def test_an_uneven_width_is_shared_out_over_the_sweeps():
    gibbs = ParticleGibbs(10, iterations=4)
    state = gibbs.start(0)
    sizes = []
    while asks := gibbs.ask(state):
        assert [ask.want.node for ask in asks] == [ROOT]
        sizes.append(asks[0].want.count)
        tell(gibbs, state, *[step(0.5, "stop")] * sizes[-1])
    assert sizes == [3, 3, 2, 2]


def test_there_are_no_more_sweeps_than_responses():
    gibbs = ParticleGibbs(2, iterations=5)
    state = gibbs.start(0)
    for _ in range(2):
        tell(gibbs, state, step(0.5, "stop"))
    assert gibbs.ask(state) == []


def test_one_sweep_is_the_particle_filter():
    filtered, swept = run(ParticleFilter(9), seed=5), run(ParticleGibbs(9, iterations=1), seed=5)
    assert swept.nodes == filtered.nodes


def test_the_reference_is_drawn_by_its_weight():
    gibbs = ParticleGibbs(4, iterations=2)
    first = 0
    for seed in range(2000):
        state = gibbs.start(seed)
        tell(gibbs, state, step(0.8, "stop"), step(0.5, "stop"))
        gibbs.ask(state)
        first += state.data["reference"] == 1
    assert first / 2000 == pytest.approx(0.8, abs=0.03)  # odds 4 and 1


def with_reference(*scores: float, width: int = 2) -> tuple[ParticleGibbs, SearchState]:
    """Second sweep, before its first step, around a response with these step scores (by `last`)."""
    gibbs = ParticleGibbs(width * 2, iterations=2, ess_threshold=0.95, aggregate="last")
    state = gibbs.start(0)
    others = [step(1e-7, "stop")] * (width - 1)
    tell(gibbs, state, step(scores[0]), *others)
    for at, score in enumerate(scores[1:], 2):
        tell(gibbs, state, step(score, "stop" if at == len(scores) else "step"))
    assert gibbs.ask(state)[0].want.node == ROOT
    assert state.path(state.data["reference"])[0] == 1
    return gibbs, state


def test_the_reference_weighs_what_its_prefix_is_worth():
    gibbs, state = with_reference(0.2, 0.5, 0.9999)
    tell(gibbs, state, step(0.8), step(0.8, "stop"))
    nodes_asked(gibbs, state)  # odds 1/4 and 4, where the final score would have 9999
    final = gibbs.log_weights(state)[state.data["reference"]]
    assert final == pytest.approx(log((0.25 + 4) / 2) - log(0.25) + log(0.9999 / 0.0001))


def test_free_copies_of_the_reference_go_on_from_its_prefix_of_the_same_length():
    gibbs, state = with_reference(0.9999, 0.9999, 0.5)
    reference = state.path(state.data["reference"])
    tell(gibbs, state, step(1e-7), step(1e-7))
    assert nodes_asked(gibbs, state) == [reference[0]] * 2
    tell(gibbs, state, step(1e-7), step(1e-7))
    assert nodes_asked(gibbs, state) == [reference[1]] * 2


def test_the_reference_survives_a_resampling_that_is_against_it():
    gibbs, state = with_reference(1e-7, 1e-7, 0.9999)
    reference = state.data["reference"]
    tell(gibbs, state, step(0.9), step(0.01))
    assert len(nodes_asked(gibbs, state)) == 2
    tell(gibbs, state, step(0.9, "stop"), step(0.01, "stop"))
    assert reference in gibbs.log_weights(state)


def test_a_reference_that_is_finished_is_no_live_particle():
    gibbs, state = with_reference(0.9999, 0.9999)
    tell(gibbs, state, step(0.5), step(0.5))
    reference = state.path(state.data["reference"])
    asked = nodes_asked(gibbs, state)
    assert set(asked) <= {reference[0], *state.last}
    tell(gibbs, state, step(0.4), step(0.4))
    assert nodes_asked(gibbs, state) == state.last


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_references_follow_the_target_although_sweeps_are_small(resampling: Any):
    gibbs = ParticleGibbs(40, iterations=20, ess_threshold=0.9, resampling=resampling)
    wanted = target(1.0)
    total = sum(wanted.values())
    best = max(wanted, key=lambda response: wanted[response])
    runs = []
    for seed in range(120):
        found = [tuple(response) for response in references(gibbs, seed)][6:]
        runs.append(
            (
                np.mean([response == best for response in found]),
                np.mean([len(response) == 6 for response in found]),
                np.mean([response[0] == FIRST_LETTER for response in found]),
            )
        )
    exact = (
        wanted[best] / total,
        sum(weight for response, weight in wanted.items() if len(response) == 6) / total,
        sum(weight for response, weight in wanted.items() if response[0] == FIRST_LETTER) / total,
    )
    error = np.std(runs, axis=0, ddof=1) / len(runs) ** 0.5
    assert (np.abs(np.mean(runs, axis=0) - exact) < 3.5 * error).all()
    assert (error < 0.03).all()


def references(gibbs: ParticleGibbs, seed: int) -> list[list[int]]:
    """Response of the reference of each sweep."""
    tree = FakeTree(**SMALL)
    state = gibbs.start(seed)
    found: list[list[int]] = []
    sweep = 0
    while asks := gibbs.ask(state):
        if state.data["sweep"] > sweep:
            sweep = state.data["sweep"]
            found.append(state.response(state.data["reference"]))
        for ask in asks:
            gibbs.tell(state, ask.ticket, tree.answer(state, ask))
    return found


def test_a_weighted_vote_among_particles_is_by_their_weights() -> None:
    """After a resampling the score is in how many particles there are; voting by it again counts it twice."""
    searcher = ParticleFilter(16, ess_threshold=1.0)
    state = run(searcher, seed=1)
    assert searcher.vote_weights(state) == searcher.log_weights(state)
    assert list(searcher.vote_weights(state)) == searcher.leaves(state)
    scores = [state.log_score(node, "prod") for node in searcher.leaves(state)]
    assert list(searcher.vote_weights(state).values()) != pytest.approx(scores)
