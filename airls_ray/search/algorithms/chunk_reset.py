"""Chains whose bad steps are sampled again (chunk reset of StepWiser, arXiv 2508.19229)."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.chunk_reset import ChunkReset


def build(config: SearchConfig, width: int, how: Aggregate) -> ChunkReset:
    """Return the search with the given number of chains."""
    reset = config.chunk_reset
    return ChunkReset(width, reset.threshold, reset.attempts, how)


ALGORITHM = Algorithm("chunk reset", "best", build)
