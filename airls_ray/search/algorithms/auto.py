"""The search that a plan of `airls-ray plan-search` names for the problem's difficulty (arXiv 2408.03314)."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.auto import Auto, Choice
from airls_ray.search.plan_file import read_bins


def build(config: SearchConfig, width: int, how: Aggregate) -> Auto:
    """Return the search by the plan's best row whose searches are at most so wide."""
    from airls_ray.search.registry import algorithm_of, make_searcher  # it imports this module

    auto = config.auto
    assert auto.plan is not None  # `lacks` has asked
    choices = [
        Choice(
            one.up_to,
            make_searcher(one.algorithm, config, one.width, how),
            config.answer or algorithm_of(one.algorithm).answer,
        )
        for one in read_bins(auto.plan, width, auto.budget, config.scorer.shown)
    ]
    return Auto(tuple(choices), min(auto.probe, width), how)


def lacks(config: SearchConfig) -> str | None:
    """Return what is missing: the plan."""
    if config.auto.plan is not None:
        return None
    return (
        "the search auto follows a plan, and there is none: write one by `airls-ray plan-search`, and set "
        "search.auto.plan"
    )


ALGORITHM = Algorithm("by the problem's difficulty", "best", build, lacks)
