"""The particle filter and particle Gibbs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import exp, log, prod
from typing import Any

import numpy as np
import pytest

from airls_ray.search import particles
from airls_ray.search.particles import ParticleFilter, ParticleGibbs
from airls_ray.search.resampling import SCHEMES, systematic
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Child, Expansion, Finish, SearchState
from tests.unit.search_fakes import END, FIRST_LETTER, STEP, letters_of, oracle, random_score, run


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
    swept = gibbs.start(0)
    tell(gibbs, swept, step(0.8, "stop"), step(0.5, "stop"))
    first = 0
    for seed in range(2000):
        state = replace(swept, seed=seed, data={**swept.data})
        gibbs.plan(state)
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


# Every course of a sweep, with its probability


class Draw:
    """Stands for the generator of a round, which draws once: gives one outcome and keeps all of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.outcomes: list[tuple[float, Any]] = [(1.0, None)]
        self.edges: list[float] = []

    def _give(self, outcomes: Iterable[tuple[float, Any]]) -> Any:
        self.outcomes = [(float(chance), outcome) for chance, outcome in outcomes]
        return self.outcomes[self.at][1]

    def choice(self, among: Sequence[int], p: np.ndarray) -> Any:
        return self._give(zip(p, among, strict=True))

    def multinomial(self, count: int, weights: np.ndarray) -> Any:
        chances: dict[tuple[int, ...], float] = defaultdict(float)
        for draws in product(range(len(weights)), repeat=count):
            chances[tuple(draws.count(at) for at in range(len(weights)))] += prod(weights[at] for at in draws)
        return self._give((chance, np.array(counts)) for counts, chance in chances.items())

    def random(self) -> Any:
        return self._give((end - start, (start + end) / 2) for start, end in pairwise(self.edges))


def systematic_by_intervals(
    weights: np.ndarray, count: int, rng: Draw, kept: int | None = None
) -> np.ndarray:
    """`systematic`, whose counts are the same for all uniform numbers between two edges."""
    ends = np.cumsum(weights) * count
    stretch = 1.0 if kept is None else ends[0]  # the particle kept is the first
    cuts = {(whole + end % 1.0) / stretch for end in ends for whole in range(count)}
    rng.edges = [0.0, *sorted(cut for cut in cuts if 1e-12 < cut < 1 - 1e-12), 1.0]
    return systematic(weights, count, rng, kept)  # type: ignore[arg-type]


def copied(state: SearchState) -> SearchState:
    data = {name: dict(value) if isinstance(value, dict) else value for name, value in state.data.items()}
    return replace(state, nodes=[*state.nodes], pending={**state.pending}, told={**state.told}, data=data)


def outcomes_of(response: Sequence[int], max_steps: int) -> list[tuple[float, Child]]:
    """What may follow: three steps, of which one ends the response, as all of the last do."""
    last = list(response).count(STEP) + 1 == max_steps
    going: Finish = "length" if last else "step"
    found = []
    for chance, token, after, finish in (
        (0.35, FIRST_LETTER, STEP, going),
        (0.15, FIRST_LETTER, END, "stop"),
        (0.5, FIRST_LETTER + 1, STEP, going),
    ):
        score = random_score((*response, token, after))
        found.append((chance, Child((token, after), -1.0, (score,), finish)))  # type: ignore[arg-type]
    return found


def whole_responses(max_steps: int) -> dict[tuple[Child, ...], float]:
    """Every response of that policy as its steps, and its probability."""
    found: dict[tuple[Child, ...], float] = {}
    live: dict[tuple[Child, ...], float] = {(): 1.0}
    while live:
        longer = {
            (*steps, child): probability * chance
            for steps, probability in live.items()
            for chance, child in outcomes_of(tokens_of(steps), max_steps)
        }
        found |= {steps: each for steps, each in longer.items() if steps[-1].finish != "step"}
        live = {steps: each for steps, each in longer.items() if steps[-1].finish == "step"}
    return found


def tokens_of(steps: Sequence[Child]) -> tuple[int, ...]:
    return tuple(token for child in steps for token in child.tokens)


class Sweeps:
    """Follows a sweep through all that may happen."""

    def __init__(self, gibbs: ParticleGibbs, max_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gibbs, self.max_steps = gibbs, max_steps
        self.draw = Draw(0)
        self.law: dict[tuple[int, ...], float] = defaultdict(float)
        """Probability of each response as the reference after the sweep."""
        self.resampled = 0
        monkeypatch.setattr(particles, "_random", lambda state: self.draw)
        monkeypatch.setitem(SCHEMES, "systematic", systematic_by_intervals)  # type: ignore[arg-type]

    def after(self, reference: Sequence[Child], probability: float) -> None:
        """Add to the law what a sweep around this reference leads to, times the probability of it."""
        state = self.gibbs.start(0)
        self.draw = Draw(0)
        for child in reference:  # all particles of the first sweep go one way, so that it is the reference
            asks = self.gibbs.ask(state)
            for ask in asks:
                self.gibbs.tell(state, ask.ticket, [child] * ask.want.count)
        self._follow(state, probability)

    def _follow(self, before: SearchState, probability: float) -> None:
        self.draw = Draw(0)
        state = copied(before)
        asks = self.gibbs.ask(state)
        drawn = self.draw.outcomes
        if state.data["sweep"] == 2:
            for chance, node in drawn:
                self.law[tuple(state.response(node))] += probability * chance
            return
        self.resampled += len(drawn) > 1
        for at, (chance, _) in enumerate(drawn):
            if at:
                self.draw = Draw(at)
                state = copied(before)
                asks = self.gibbs.ask(state)
            self._sample(state, asks, probability * chance)

    def _sample(self, state: SearchState, asks: Sequence[Expansion], probability: float) -> None:
        nodes = [ask.want.node for ask in asks for _ in range(ask.want.count)]
        for each in product(*(outcomes_of(state.response(node), self.max_steps) for node in nodes)):
            told, rest = copied(state), [child for _, child in each]
            for ask in asks:
                self.gibbs.tell(told, ask.ticket, [rest.pop(0) for _ in range(ask.want.count)])
            self._follow(told, probability * prod(chance for chance, _ in each))


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize(("free", "max_steps"), [(1, 3), (2, 2)])
def test_references_follow_the_target_although_sweeps_are_small(
    resampling: Any, free: int, max_steps: int, monkeypatch: pytest.MonkeyPatch
):
    """A reference that follows the target does so after a sweep, too: exactly, by all courses of it."""
    gibbs = ParticleGibbs(free * 3, iterations=3, ess_threshold=0.9, resampling=resampling)
    sweeps = Sweeps(gibbs, max_steps, monkeypatch)
    wanted = {}
    for steps, probability in whole_responses(max_steps).items():
        score = prod(child.scores[0] for child in steps)
        wanted[steps] = probability * score / (1 - score)
    total = sum(wanted.values())
    for steps, weight in wanted.items():
        sweeps.after(steps, weight / total)
    assert sweeps.resampled > 20
    assert sweeps.law == pytest.approx({tokens_of(steps): each / total for steps, each in wanted.items()})


def test_a_weighted_vote_among_particles_is_by_their_weights() -> None:
    """After a resampling the score is in how many particles there are; voting by it again counts it twice."""
    searcher = ParticleFilter(16, ess_threshold=1.0)
    state = run(searcher, seed=1)
    assert searcher.vote_weights(state) == searcher.log_weights(state)
    assert list(searcher.vote_weights(state)) == searcher.leaves(state)
    scores = [state.log_score(node, "prod") for node in searcher.leaves(state)]
    assert list(searcher.vote_weights(state).values()) != pytest.approx(scores)
