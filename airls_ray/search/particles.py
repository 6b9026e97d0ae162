"""Search as inference: a particle filter over steps, and particle Gibbs, which repeats it around a good path.

After Puri et al. 2025 (arXiv 2502.01618). Both draw responses from

    target(x)  ~  policy(x) * odds(R(x)) ** (1 / temperature)

where R is the score of the whole response. A prefix x_t stands for the same product with R(x_t), so that
the weight of a particle is the log-odds of its whole prefix over the temperature, however many steps it has.
Weights go on where the last resampling left them: if a particle was at prefix y when it survived one, all
its live companions and it had one common log-weight c there, and now it has

    log w(x_t)  =  c  +  (log_odds(R(x_t)) - log_odds(R(y))) / temperature.

These terms telescope, so that the target does not depend on when or how often particles are resampled. (The
published code resamples after every step with the whole log-odds anew. That targets the product of the odds
of all prefixes: early steps count once for each step after them, and long responses are weighted more often
than short ones.) c is the logarithm of the mean weight of those that were resampled. It matters because
finished particles are not: they keep their place and their weight, which must stay comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.resampling import (
    SCHEMES,
    Resampling,
    effective_sample_size,
    log_odds,
    probabilities,
)
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want
from airls_ray.seeding import derive_seed

_RESTARTS = "restarts"
"""In `state.data`, by node: c - log_odds(R(y)) / temperature of the particles that were resampled there."""


@dataclass(frozen=True)
class ParticleFilter(Searcher):
    """`width` responses that grow side by side; after a step, likely ones are copied over unlikely ones.

    Finished responses keep their place and are neither copied nor overwritten, so that `width` of them are
    found and a round samples at most `width` steps. With constant scores it is plain sampling.
    """

    width: int
    temperature: float = 1.0
    """T_s: low follows the scores, high the policy."""
    ess_threshold: float = 0.5
    """Live particles are resampled when their effective number is below this share of them; 0: never."""
    resampling: Resampling = "systematic"
    """The paper's is multinomial, which keeps fewer different particles."""
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """One step of every live particle."""
        if not state.rounds:
            return [Want(ROOT, self.width)]
        live = [node for node in state.last if not state.nodes[node].finished]
        return self._continue(state, live)

    def vote_weights(self, state: SearchState) -> dict[int, float]:
        """Their weights: what was resampled has its score in its number already."""
        return self.log_weights(state)

    def log_weights(self, state: SearchState) -> dict[int, float]:
        """Finished responses and their log-weights, in nats: who votes with them estimates the target.

        Over many searches the mean of sum(weight * f(response)) / width is that of odds ** (1 / temperature)
        * f over the policy's responses, for every f and every width.
        """
        return self._log_weights(state, state.finished())

    def _log_weights(self, state: SearchState, nodes: Sequence[int]) -> dict[int, float]:
        return {node: _restart(state, node) + self._log_odds(state, node) for node in nodes}

    def _log_odds(self, state: SearchState, node: int) -> float:
        return log_odds(state.log_value(node, self.aggregate)) / self.temperature

    def _continue(self, state: SearchState, live: Sequence[int], fixed: int | None = None) -> list[Want]:
        """Resample the live particles if need be and continue them by a step.

        `fixed` is a live particle, too; it survives, and its first copy costs nothing.
        """
        particles = list(live) if fixed is None else [fixed, *live]
        counts = self._resample(state, particles, None if fixed is None else 0)
        if fixed is not None:
            counts[0] -= 1
        return [Want(node, int(count)) for node, count in zip(particles, counts, strict=True) if count]

    def _resample(
        self, state: SearchState, particles: Sequence[int], kept: int | None = None
    ) -> NDArray[np.int64]:
        """How often each particle goes on; where that is not once, their weights become one."""
        if not particles or self.ess_threshold == 0.0:  # weights cost a walk to the root each
            return np.ones(len(particles), dtype=np.int64)
        logs = np.array(list(self._log_weights(state, particles).values()))
        if effective_sample_size(logs) >= self.ess_threshold * len(particles):
            return np.ones(len(particles), dtype=np.int64)
        mean = float(logsumexp(logs)) - log(len(particles))
        restarts = state.data.setdefault(_RESTARTS, {})
        for node in particles:
            restarts[str(node)] = mean - self._log_odds(state, node)
        scheme = SCHEMES[self.resampling]
        return scheme(probabilities(logs), len(particles), _random(state), kept)


@dataclass(frozen=True)
class ParticleGibbs(ParticleFilter):
    """Particle filters one after the other, each around a response of the one before (the reference).

    Conditional sequential Monte Carlo (Andrieu, Doucet, Holenstein 2010): the reference is a particle more
    that survives every resampling. It weighs what its prefix of the same number of steps is worth, not what
    it came to in the end; free copies of it go on from that prefix. At the end of a sweep the next reference
    is drawn among the sweep's responses and the old one by their weights.

    The reference costs nothing, so the sweeps share out the width evenly (the first ones get what is left
    over; there are at most `width` of them) and find `width` responses together.
    """

    iterations: int = 4
    """Sweeps."""

    def vote_weights(self, state: SearchState) -> dict[int, float]:
        """Log-scores, as of all other searches: weights of different sweeps cannot be compared."""
        return Searcher.vote_weights(self, state)

    def plan(self, state: SearchState) -> list[Want]:
        """One step of the sweep under way, or the first of the next."""
        if not state.rounds:
            return self._sweep(state, 0, None)
        live = [node for node in state.last if not state.nodes[node].finished]
        if live:
            return self._continue(state, live, self._reference(state, live[0]))
        if state.data["sweep"] + 1 == len(self._sizes()):
            return []
        found = self.log_weights(state)
        reference = _random(state).choice(list(found), p=probabilities(np.array(list(found.values()))))
        return self._sweep(state, state.data["sweep"] + 1, int(reference))

    def log_weights(self, state: SearchState) -> dict[int, float]:
        """The same for the sweep under way: its reference and its finished responses."""
        mine = [node for node in state.finished() if node >= state.data.get("first", 0)]
        reference = state.data.get("reference")
        return self._log_weights(state, mine if reference is None else [reference, *mine])

    def _sizes(self) -> list[int]:
        sweeps = min(self.iterations, self.width)
        each, more = divmod(self.width, sweeps)
        return [each + (sweep < more) for sweep in range(sweeps)]

    def _sweep(self, state: SearchState, sweep: int, reference: int | None) -> list[Want]:
        state.data.update(sweep=sweep, reference=reference, first=len(state.nodes))
        state.data[_RESTARTS] = {}
        return [Want(ROOT, self._sizes()[sweep])]

    def _reference(self, state: SearchState, live: int) -> int | None:
        """The reference's prefix of as many rounds as `live`; None: there is none or it is finished there."""
        if state.data["reference"] is None:
            return None
        path = state.path(state.data["reference"])
        rounds = len(state.path(live))
        return path[rounds - 1] if rounds < len(path) else None


def _restart(state: SearchState, node: int) -> float:
    """What the last resampling on the way to `node` left to add to its log-odds."""
    restarts = state.data.get(_RESTARTS, {})
    for at in reversed(state.path(node)):
        if str(at) in restarts:
            return float(restarts[str(at)])
    return 0.0


def _random(state: SearchState) -> np.random.Generator:
    return np.random.default_rng(derive_seed(state.seed, "resample", state.rounds))
