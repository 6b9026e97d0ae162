"""Reward-balanced search: the width is shared out by a softmax of the scores."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.rebase import REBASE


def build(config: SearchConfig, width: int, how: Aggregate) -> REBASE:
    """Return the search with the given width."""
    return REBASE(width, config.rebase.temperature, how)


ALGORITHM = Algorithm("REBASE", "weighted", build)
