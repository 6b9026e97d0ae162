"""Algorithms by name: how each is made from the settings, and which answer rule its authors use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airls_ray.config.search_section import AlgorithmName, AnswerRule, SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.beam import DVTS, Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.ets import ETS
from airls_ray.search.mcts import MCTS
from airls_ray.search.particles import ParticleFilter, ParticleGibbs
from airls_ray.search.rebase import REBASE
from airls_ray.search.searcher import Searcher

Build = Callable[[SearchConfig, int, Aggregate], Searcher]


@dataclass(frozen=True)
class Algorithm:
    """A search algorithm as users name it."""

    label: str
    answer: AnswerRule
    build: Build


def _beam(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    return Beam(width, config.tree.expansion, how, distinct=config.tree.distinct)


def _lookahead(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    tree = config.tree
    return Beam(width, tree.expansion, how, lookahead=tree.lookahead, distinct=tree.distinct)


def _early_rejection(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    tree = config.tree
    return EarlyRejection(width, tree.expansion, tree.partial_tokens, how, tree.distinct)


def _rebase(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    return REBASE(width, config.rebase.temperature, how)


def _ets(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    rebase = config.rebase
    return ETS(
        width,
        rebase.temperature,
        how,
        cost_weight=rebase.cost_weight,
        coverage_weight=rebase.coverage_weight,
    )


def _particle_filter(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    particles = config.particles
    return ParticleFilter(width, particles.temperature, particles.ess_threshold, particles.resampling, how)


def _particle_gibbs(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    particles = config.particles
    return ParticleGibbs(
        width,
        particles.temperature,
        particles.ess_threshold,
        particles.resampling,
        how,
        iterations=particles.iterations,
    )


def _mcts(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    mcts = config.mcts
    return MCTS(
        width,
        mcts.expansion,
        mcts.selection,
        mcts.exploration,
        mcts.value,
        how,
        widening=mcts.widening,
    )


ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    "best_of_n": Algorithm("Best-of-N", "best", lambda config, width, how: BestOfN(width, how)),
    "beam": Algorithm("beam search", "best", _beam),
    "lookahead": Algorithm("beam search with lookahead", "best", _lookahead),
    "dvts": Algorithm("DVTS", "weighted", lambda config, width, how: DVTS(width, config.tree.expansion, how)),
    "early_rejection": Algorithm("early rejection", "best", _early_rejection),
    "rebase": Algorithm("REBASE", "weighted", _rebase),
    "ets": Algorithm("ETS", "weighted", _ets),
    "particle_filter": Algorithm("particle filter", "best", _particle_filter),
    "particle_gibbs": Algorithm("particle Gibbs", "best", _particle_gibbs),
    "mcts": Algorithm("MCTS", "best", _mcts),
}


def make_searcher(name: AlgorithmName, config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    """Return the algorithm of a name with the given width."""
    return ALGORITHMS[name].build(config, width, how)
