"""Diverse verifier tree search: beams that do not compete."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.beam import DVTS


def build(config: SearchConfig, width: int, how: Aggregate) -> DVTS:
    """Return the search with the given width."""
    return DVTS(width, config.tree.expansion, how)


ALGORITHM = Algorithm("DVTS", "weighted", build)
