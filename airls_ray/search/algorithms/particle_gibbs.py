"""Particle Gibbs: sweeps of the particle filter, each with a response of the one before."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.particles import ParticleGibbs


def build(config: SearchConfig, width: int, how: Aggregate) -> ParticleGibbs:
    """Return the search with the given width."""
    particles = config.particles
    return ParticleGibbs(
        width,
        particles.temperature,
        particles.ess_threshold,
        particles.resampling,
        how,
        iterations=particles.iterations,
    )


ALGORITHM = Algorithm("particle Gibbs", "best", build)
