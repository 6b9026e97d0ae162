"""Particle filter: prefixes are resampled by their scores."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.particles import ParticleFilter


def build(config: SearchConfig, width: int, how: Aggregate) -> ParticleFilter:
    """Return the search with the given width."""
    particles = config.particles
    return ParticleFilter(width, particles.temperature, particles.ess_threshold, particles.resampling, how)


ALGORITHM = Algorithm("particle filter", "best", build)
