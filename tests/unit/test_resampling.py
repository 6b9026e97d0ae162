"""Resampling and weights of particles, against their expectations."""

from __future__ import annotations

from functools import cache
from math import log
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airls_ray.search.resampling import (
    LOWEST,
    SCHEMES,
    effective_sample_size,
    log_odds,
    multinomial,
    probabilities,
    systematic,
)

WEIGHTS = np.array([0.05, 0.4, 0.0, 0.33, 0.22])


class Fixed:
    """A generator whose one uniform number is given."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@cache
def on_a_grid(count: int, kept: int | None = None, points: int = 5_000) -> np.ndarray:
    """[points, particles]: systematic counts for uniform numbers at equal distances."""
    numbers = (np.arange(points) + 0.5) / points
    return np.array([systematic(WEIGHTS, count, Fixed(number), kept) for number in numbers])


def test_systematic_counts_are_the_expectation_rounded_down_or_up():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.dirichlet(np.full(9, 0.3))
        count = int(rng.integers(1, 20))
        counts = systematic(weights, count, rng)
        assert counts.sum() == count
        assert (counts >= np.floor(count * weights)).all()
        assert (counts <= np.floor(count * weights) + 1).all()


def test_systematic_resampling_is_unbiased():
    assert on_a_grid(7).mean(axis=0) == pytest.approx(7 * WEIGHTS, abs=1e-3)


def test_systematic_variance_is_that_of_the_fractional_part():
    fraction = 7 * WEIGHTS - np.floor(7 * WEIGHTS)
    assert on_a_grid(7).var(axis=0) == pytest.approx(fraction * (1 - fraction), abs=1e-3)


def test_equal_weights_survive_systematic_resampling_once_each():
    for particles in (1, 2, 3, 7, 49, 64):
        counts = systematic(np.full(particles, 1 / particles), particles, np.random.default_rng(particles))
        assert counts.tolist() == [1] * particles


def test_multinomial_mean_and_variance():
    rng = np.random.default_rng(0)
    draws = np.array([multinomial(WEIGHTS, 7, rng) for _ in range(20_000)])
    assert draws.mean(axis=0) == pytest.approx(7 * WEIGHTS, abs=0.05)
    assert draws.var(axis=0) == pytest.approx(7 * WEIGHTS * (1 - WEIGHTS), abs=0.06)


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_systematic_counts_with_a_survivor_are_those_where_a_random_draw_is_the_survivor(kept: int):
    free = on_a_grid(7)
    given = on_a_grid(7, kept)
    assert (given[:, kept] >= 1).all()
    by_size = (free * free[:, [kept]]).sum(axis=0) / free[:, kept].sum()
    assert given.mean(axis=0) == pytest.approx(by_size, abs=2e-3)


def test_multinomial_with_a_survivor_draws_the_others_freely():
    rng = np.random.default_rng(0)
    draws = np.array([multinomial(WEIGHTS, 7, rng, kept=0) for _ in range(20_000)])
    assert (draws[:, 0] >= 1).all()
    assert draws.mean(axis=0) == pytest.approx(6 * WEIGHTS + np.eye(5)[0], abs=0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_survivor_without_weight_survives_once(scheme: Any):
    rng = np.random.default_rng(0)
    counts = SCHEMES[scheme](np.array([0.5, 0.5, 0.0]), 5, rng, 2)
    assert counts[2] == 1
    assert counts.sum() == 5


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="cannot draw 3"):
        systematic(np.array([0.5, 0.4]), 3, np.random.default_rng(0))


def test_effective_sample_size_by_hand():
    assert effective_sample_size(np.log([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)


def test_effective_sample_size_of_equal_weights_is_exactly_their_number():
    for particles in range(1, 70):
        assert effective_sample_size(np.full(particles, -1234.567)) == particles


def test_probabilities_of_log_weights_far_below_the_smallest_float():
    found = probabilities(np.array([-2000.0, -2000.0 - log(3)]))
    assert found == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("bad", [[], [0.0, np.nan], [np.inf, 0.0]])
def test_log_weights_that_are_no_numbers_are_refused(bad: list[float]):
    with pytest.raises(ValueError, match="finite"):
        probabilities(np.array(bad))


def test_log_odds_by_hand_and_clipped():
    assert log_odds(log(0.8)) == pytest.approx(log(4))
    assert log_odds(-900.0) == pytest.approx(-900.0)
    assert log_odds(-np.inf) == LOWEST
    assert log_odds(0.0) == pytest.approx(-log(1e-7), abs=1e-6)


def test_no_particle_is_lost_where_the_first_point_is_all_but_one() -> None:
    """64 - (1 - 2^-53) is rounded to 63."""
    random: Any = SimpleNamespace(random=lambda: 1.0 - 2.0**-53)
    assert systematic(np.full(64, 1 / 64), 64, random).sum() == 64
