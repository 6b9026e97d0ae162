"""Beam search whose steps are scored by greedy steps behind them."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.beam import Beam


def build(config: SearchConfig, width: int, how: Aggregate) -> Beam:
    """Return the search with the given width."""
    tree = config.tree
    return Beam(width, tree.expansion, how, lookahead=tree.lookahead, distinct=tree.distinct)


ALGORITHM = Algorithm("beam search with lookahead", "best", build)
