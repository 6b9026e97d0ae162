"""Lengths of responses: against scipy's log-normal law and its integrals."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from scipy import integrate, stats

from airls_ray.planning.lengths import ResponseLengths

REASONING = ResponseLengths.of_quantiles(4096, 24576, 0.99, 32768)


def law(lengths: ResponseLengths) -> stats.rv_continuous:
    return stats.lognorm(s=lengths.spread_log, scale=exp(lengths.mean_log))


@pytest.mark.parametrize(
    ("median", "high", "share"), [(4096, 24576, 0.99), (500, 900, 0.9), (50, 5000, 0.999)]
)
def test_the_law_has_the_quantiles_that_were_asked_for(median: float, high: float, share: float) -> None:
    found = law(ResponseLengths.of_quantiles(median, high, share, 10**9))
    assert found.ppf(0.5) == pytest.approx(median)
    assert found.ppf(share) == pytest.approx(high)


@pytest.mark.parametrize("cap", [1000, 8192, 32768, 10**7])
def test_the_mean_is_that_of_the_capped_law(cap: int) -> None:
    lengths = ResponseLengths.of_quantiles(4096, 24576, 0.99, cap)
    survival, _ = integrate.quad(law(lengths).sf, 0, min(cap, 10**6), limit=500)
    assert lengths.mean() == pytest.approx(survival, rel=1e-6)


@pytest.mark.parametrize("count", [1, 8, 512, 65536])
def test_the_longest_of_many_is_the_integral_of_what_all_fall_short_of(count: int) -> None:
    longest, _ = integrate.quad(lambda x: 1 - law(REASONING).cdf(x) ** count, 0, REASONING.cap, limit=500)
    assert REASONING.expected_longest(count) == pytest.approx(longest, rel=1e-4)


def test_draws_follow_the_capped_law() -> None:
    drawn = REASONING.draw(200_000, np.random.default_rng(0))
    assert drawn.max() == REASONING.cap
    assert np.mean(drawn <= 4096) == pytest.approx(0.5, abs=0.005)
    assert np.mean(drawn <= 24576) == pytest.approx(0.99, abs=0.001)
    assert drawn.mean() == pytest.approx(REASONING.mean(), rel=0.01)


def test_no_response_is_empty() -> None:
    assert ResponseLengths.of_quantiles(1, 1, 0.9, 10).draw(100, np.random.default_rng(0)).min() == 1


def test_without_spread_all_are_as_long() -> None:
    even = ResponseLengths.of_quantiles(700, 700, 0.9, 1000)
    assert even.draw(5, np.random.default_rng(0)).tolist() == [700] * 5
    assert (even.mean(), even.expected_longest(9)) == pytest.approx((700, 700))


@pytest.mark.parametrize(("median", "high", "share"), [(0, 5, 0.9), (5, 4, 0.9), (4, 5, 0.5), (4, 5, 1.0)])
def test_quantiles_that_no_law_has_are_refused(median: float, high: float, share: float) -> None:
    with pytest.raises(ValueError, match="give a positive median"):
        ResponseLengths.of_quantiles(median, high, share, 10)
