"""How long the responses of a policy are: a log-normal law with a cap, fitted to two quantiles.

That lengths of reasoning are about log-normal, with a few per cent that are many times the median, is an
assumption here; measure your own (`rollout/response_tokens_mean` and the stored rollouts of a run).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_GRID = 4096
"""Points of the numeric integral of `expected_longest`."""


@dataclass(frozen=True)
class ResponseLengths:
    """min(X, cap) where log X is normal; all in tokens."""

    mean_log: float
    """Mean of log X."""
    spread_log: float
    """Standard deviation of log X; 0: all are as long."""
    cap: int
    """`rollout.max_response_tokens`."""

    @classmethod
    def of_quantiles(cls, median: float, high: float, share: float, cap: int) -> ResponseLengths:
        """Return the law with this median, and `share` of the responses no longer than `high`.

        log X has mean log(median) and deviation log(high / median) / z(share), z the normal quantile.

        Raises:
            ValueError: not 0 < median <= high, or `share` is not between 1/2 and 1.
        """
        if not 0 < median <= high or not 0.5 < share < 1:
            raise ValueError(
                f"the lengths have median {median:g}, and {share:g} of them are at most {high:g}: give a "
                "positive median, a share between 0.5 and 1, and a length there that is at least the median"
            )
        return cls(log(median), log(high / median) / _NORMAL.inv_cdf(share), cap)

    def mean(self) -> float:
        """Mean length: exp(m + s^2 / 2) Phi((log c - m) / s - s) + c (1 - Phi((log c - m) / s))."""
        if not self.spread_log:
            return min(exp(self.mean_log), self.cap)
        z = (log(self.cap) - self.mean_log) / self.spread_log
        below = exp(self.mean_log + self.spread_log**2 / 2) * _NORMAL.cdf(z - self.spread_log)
        return below + self.cap * (1 - _NORMAL.cdf(z))

    def expected_longest(self, count: int) -> float:
        """Mean of the longest of `count` independent ones: the integral of 1 - F(x)^count up to the cap."""
        if not self.spread_log:
            return self.mean()
        points = np.linspace(0.0, self.cap, _GRID + 1)[1:]
        shares = [_NORMAL.cdf((log(x) - self.mean_log) / self.spread_log) for x in points]
        rest = np.concatenate([[1.0], 1.0 - np.asarray(shares) ** count])
        return float(np.sum((rest[1:] + rest[:-1]) / 2) * self.cap / _GRID)

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Draw `count` lengths, int64 [count], each at least 1."""
        drawn = np.exp(self.mean_log + self.spread_log * random.standard_normal(count))
        return np.clip(np.rint(drawn), 1, self.cap).astype(np.int64)
