"""Beam search: the best prefixes of each level go on."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.beam import Beam


def build(config: SearchConfig, width: int, how: Aggregate) -> Beam:
    """Return the search with the given width."""
    return Beam(width, config.tree.expansion, how, distinct=config.tree.distinct)


ALGORITHM = Algorithm("beam search", "best", build)
