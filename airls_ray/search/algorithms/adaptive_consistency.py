"""Best-of-N by majority that stops when the vote is decided (adaptive consistency, arXiv 2305.11860)."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.adaptive_consistency import AdaptiveConsistency
from airls_ray.search.algorithm import Algorithm


def build(config: SearchConfig, width: int, how: Aggregate) -> AdaptiveConsistency:
    """Return the search with the given width."""
    adaptive = config.adaptive_consistency
    return AdaptiveConsistency(width, adaptive.threshold, adaptive.batch, adaptive.criterion, how)


ALGORITHM = Algorithm("adaptive consistency", "majority", build)
