"""Monte Carlo tree search over steps."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.mcts import MCTS


def build(config: SearchConfig, width: int, how: Aggregate) -> MCTS:
    """Return the search with the given width."""
    mcts = config.mcts
    return MCTS(
        width,
        mcts.expansion,
        mcts.selection,
        mcts.exploration,
        mcts.value,
        how,
        widening=mcts.widening,
        widening_power=mcts.widening_power,
    )


ALGORITHM = Algorithm("MCTS", "best", build)
