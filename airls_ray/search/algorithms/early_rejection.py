"""Beam search that rejects steps after their first tokens."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.early_rejection import EarlyRejection


def build(config: SearchConfig, width: int, how: Aggregate) -> EarlyRejection:
    """Return the search with the given width."""
    tree = config.tree
    return EarlyRejection(width, tree.expansion, tree.partial_tokens, how, tree.distinct)


ALGORITHM = Algorithm("early rejection", "best", build)
