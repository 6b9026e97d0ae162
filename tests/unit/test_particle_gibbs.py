"""Particle Gibbs: sweeps around a reference leave the target as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import log, prod
from typing import Any

import numpy as np
import pytest

from airls_ray.search import particles
from airls_ray.search.particles import ParticleFilter, ParticleGibbs
from airls_ray.search.resampling import SCHEMES, log_odds, systematic
from airls_ray.search.tree import ROOT, Child, Expansion, Finish, SearchState
from tests.unit.particle_fakes import nodes_asked, step, tell
from tests.unit.search_fakes import END, FIRST_LETTER, STEP, random_score, run
from tests.unit.search_fakes import run as run_search


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


def test_a_sweep_begins_without_what_the_one_before_resampled() -> None:
    """Its reference weighs what its odds say, though it was resampled on its way."""
    searcher, resampled = ParticleGibbs(8, iterations=2, ess_threshold=1.0), 0
    for seed in range(6):
        state = run_search(searcher, seed=seed, end=0.0, max_steps=3, rounds=3)  # the first sweep
        before = set(state.data["restarts"])
        searcher.ask(state)
        reference = state.data["reference"]
        resampled += any(str(node) in before for node in state.path(reference))
        wanted = log_odds(state.log_value(reference, "prod"))
        assert searcher.log_weights(state) == {reference: pytest.approx(wanted)}
    assert resampled > 0
