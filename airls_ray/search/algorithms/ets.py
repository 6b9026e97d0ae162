"""Efficient tree search: REBASE that keeps few nodes and different ones."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.ets import ETS


def build(config: SearchConfig, width: int, how: Aggregate) -> ETS:
    """Return the search with the given width."""
    rebase = config.rebase
    return ETS(
        width,
        rebase.temperature,
        how,
        cost_weight=rebase.cost_weight,
        coverage_weight=rebase.coverage_weight,
    )


ALGORITHM = Algorithm("ETS", "weighted", build)
