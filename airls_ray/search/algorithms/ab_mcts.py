"""AB-MCTS over steps, wider or deeper by Thompson sampling (arXiv 2503.04412; pip install treequest)."""

from functools import partial

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.ab_mcts import ABMCTS
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.treequest_bridge import ab_mcts_a, lacks_treequest


def build(config: SearchConfig, width: int, how: Aggregate) -> ABMCTS:
    """Return the search with the given width."""
    section = config.ab_mcts
    return ABMCTS(width, partial(ab_mcts_a, section.distribution), section.batch, how, section.value)


def lacks(config: SearchConfig) -> str | None:
    """Return what is missing: the library."""
    return lacks_treequest()


ALGORITHM = Algorithm("AB-MCTS", "best", build, lacks)
