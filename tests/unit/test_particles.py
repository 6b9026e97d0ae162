"""The particle filter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from math import exp, log, prod
from typing import Any

import numpy as np
import pytest

from airls_ray.search.particles import ParticleFilter, ParticleGibbs, _random
from airls_ray.search.tree import ROOT, SearchState
from tests.unit.particle_fakes import nodes_asked, step, tell
from tests.unit.search_fakes import END, FIRST_LETTER, STEP, letters_of, oracle, random_score, run

SEARCHES = 40
SMALL: dict[str, Any] = {"letters": 2, "step_tokens": 1, "max_steps": 3, "end": 0.3}


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


FEATURES: tuple[Callable[[Sequence[int]], bool], ...] = (
    lambda response: True,
    lambda response: len(response) == 6,
    lambda response: response[0] == FIRST_LETTER,
)
"""Whatever is estimated, the weights are without bias: their sum, and that of two kinds of responses."""


def features(response: Sequence[int]) -> np.ndarray:
    return np.array([float(feature(response)) for feature in FEATURES])


def expected(temperature: float) -> dict[tuple[int, ...], np.ndarray]:
    """What a particle at each prefix of `SMALL` comes to on average: odds of the whole response times its
    features."""
    reached: dict[tuple[int, ...], float] = defaultdict(float)
    sums: dict[tuple[int, ...], Any] = defaultdict(float)
    wanted = target(temperature)
    for response, probability in all_responses().items():
        for end in (0, *(at + 1 for at, token in enumerate(response) if token in (STEP, END))):
            reached[response[:end]] += probability
            sums[response[:end]] = sums[response[:end]] + wanted[response] * features(response)
    return {prefix: sums[prefix] / reached[prefix] for prefix in reached}


def luck(state: SearchState, worth: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """How far the children that were sampled are better than those to be expected after the same prefixes.

    It is 0 on average whatever the weights are, and most of the noise: without it a tenth of the searches
    tell as much.
    """
    restarts = state.data.get("restarts", {})
    total = np.zeros(len(FEATURES))
    for at, node in enumerate(state.nodes[1:], 1):
        survived = [restarts[str(above)] for above in state.path(node.parent) if str(above) in restarts]
        more = worth[tuple(state.response(at))] - worth[tuple(state.response(node.parent))]
        total += exp(survived[-1] if survived else 0.0) * more
    return total


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize("ess_threshold", [0.0, 0.7, 1.0])
def test_weights_estimate_the_target_without_bias(resampling: Any, ess_threshold: float):
    filter_ = ParticleFilter(4, temperature=1.5, ess_threshold=ess_threshold, resampling=resampling)
    worth = expected(1.5)
    sums = []
    for seed in range(SEARCHES):
        state = run(filter_, seed=seed, **SMALL)
        weights = filter_.log_weights(state)
        found = sum(exp(each) * features(state.response(node)) for node, each in weights.items())
        sums.append((found - luck(state, worth)) / 4)
    exact = worth[()]
    error = np.std(sums, axis=0, ddof=1) / len(sums) ** 0.5
    assert (np.abs(np.mean(sums, axis=0) - exact) < 3.5 * error + 1e-9).all()
    assert (error < 0.03 * exact).all()


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


def test_a_weighted_vote_among_particles_is_by_their_weights() -> None:
    """After a resampling the score is in how many particles there are; voting by it again counts it twice."""
    searcher = ParticleFilter(16, ess_threshold=1.0)
    state = run(searcher, seed=1)
    assert searcher.vote_weights(state) == searcher.log_weights(state)
    assert list(searcher.vote_weights(state)) == searcher.leaves(state)
    scores = [state.log_score(node, "prod") for node in searcher.leaves(state)]
    assert list(searcher.vote_weights(state).values()) != pytest.approx(scores)


def test_every_round_resamples_with_random_numbers_of_its_own() -> None:
    state = ParticleGibbs(4).start(5)
    drawn = []
    for rounds in (1, 1, 2):
        state.rounds = rounds
        drawn.append(float(_random(state).random()))
    assert drawn[0] == drawn[1] != drawn[2]
