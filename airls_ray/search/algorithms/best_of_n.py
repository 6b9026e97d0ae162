"""Best-of-N: whole responses, independent of each other."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.best_of_n import BestOfN


def build(config: SearchConfig, width: int, how: Aggregate) -> BestOfN:
    """Return the search with the given width."""
    return BestOfN(width, how)


ALGORITHM = Algorithm("Best-of-N", "best", build)
