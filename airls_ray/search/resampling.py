"""Weighted particles to equally weighted ones; weights stay logarithms until they are probabilities.

Sources: Douc, Cappe, Moulines 2005 (comparison of the schemes); Andrieu, Doucet, Holenstein 2010 and Chopin,
Singh 2015 (the same with one particle that must survive, as particle Gibbs needs it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import expm1, log, log1p
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Resampling = Literal["systematic", "multinomial"]

CLIP = 1e-7
"""Scores are kept this far from 1, so that their log-odds are at most 16.1 (arXiv 2502.01618)."""

LOWEST = -1e4
"""Log-odds of a score of 0, in nats. The published code clips at -16.1, where the products of many steps'
scores are all equal; a logarithm needs no such clip."""

_SMALLEST = 1e-300


def log_odds(log_score: float) -> float:
    """Logit of a score in [0, 1] by its logarithm, in nats, within `LOWEST` and the logit of 1 - `CLIP`."""
    bounded = min(log_score, log1p(-CLIP))
    return max(bounded - log(-expm1(bounded)), LOWEST)


def probabilities(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normalised weights.

    Args:
        log_weights: [particles], in nats, up to a common constant; finite.

    Returns:
        float64 [particles], sum 1.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    if not len(log_weights) or not np.isfinite(log_weights).all():
        raise ValueError(f"log-weights must be finite and at least one, but are {log_weights}")
    return np.asarray(softmax(log_weights))


def effective_sample_size(log_weights: NDArray[np.float64]) -> float:
    """Return (sum w)^2 / sum w^2 (Kong 1992): from 1, one particle has all weight, to the number of them.

    Equal weights give exactly their number. Arguments and errors as for `probabilities`.
    """
    weights = np.exp(log_weights - np.max(log_weights))
    return float(weights.sum() ** 2 / (weights**2).sum())


def systematic(
    weights: NDArray[np.float64], count: int, rng: np.random.Generator, kept: int | None = None
) -> NDArray[np.int64]:
    """Resample with one random number: `count` points at distance 1 on the weights laid end to end.

    Particle i gets floor(count * w_i) or one more, in expectation count * w_i: never more variance than
    `multinomial`.

    Args:
        weights: [particles], probabilities.
        count: how many to draw.
        rng: source of randomness.
        kept: a particle that must be drawn at least once. The counts then have their distribution given
            that a draw, chosen among the `count` at random, is of this particle: one point lies uniformly
            in its weight, and the others follow from it.

    Returns:
        int64 [particles]: how often each was drawn; the sum is `count`.
    """
    _check(weights, count)
    # On a circle the points do not care where it is cut, and from zero on tiny weights are exact.
    start = kept or 0
    rolled = np.roll(weights, -start)
    if kept is not None:
        rolled[0] = max(rolled[0], _SMALLEST)
    sums = np.cumsum(rolled)
    ends = sums / sums[-1] * count
    first = rng.random() if kept is None else (ends[0] * rng.random()) % 1.0
    reached = np.ceil(ends - first).astype(np.int64)
    reached[ends == count] = count  # also where the subtraction was rounded
    return np.roll(np.diff(reached, prepend=0), start)


def multinomial(
    weights: NDArray[np.float64], count: int, rng: np.random.Generator, kept: int | None = None
) -> NDArray[np.int64]:
    """Resample by independent draws; with `kept` one draw is of that particle. As `systematic` otherwise."""
    _check(weights, count)
    if kept is None:
        return rng.multinomial(count, weights)
    counts = rng.multinomial(count - 1, weights)
    counts[kept] += 1
    return counts


SCHEMES: Mapping[
    Resampling,
    Callable[[NDArray[np.float64], int, np.random.Generator, int | None], NDArray[np.int64]],
] = {"systematic": systematic, "multinomial": multinomial}


def _check(weights: NDArray[np.float64], count: int) -> None:
    # What `np.isclose` means, at a tenth of its price.
    if count < 1 or (weights < 0).any() or not abs(weights.sum() - 1.0) <= 1e-8 + 1e-5:
        raise ValueError(f"cannot draw {count} from the probabilities {weights}")
