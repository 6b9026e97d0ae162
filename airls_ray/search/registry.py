"""Algorithms by name: the built-in ones, which are the files of `airls_ray/search/algorithms`, and others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module

from airls_ray import doors
from airls_ray.config.search_section import AlgorithmName, SearchConfig, built_in_searches
from airls_ray.errors import ConfigError
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import SEARCH, Algorithm
from airls_ray.search.searcher import Searcher

WHERE = "search.algorithms"

ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    name: import_module(f"{SEARCH.package}.{name}").ALGORITHM for name in built_in_searches()
}
"""The built-in ones; a request to the endpoint can name no other."""


def ready_searches() -> list[AlgorithmName]:
    """Return the built-in ones that lack nothing: no package, and no file that a setting must name."""
    config = SearchConfig()
    return [name for name, one in ALGORITHMS.items() if one.lacks(config) is None]


@lru_cache
def algorithm_of(name: AlgorithmName) -> Algorithm:
    """Return a built-in algorithm, or what a name of the user's leads to (docs/doors.md).

    Raises:
        DoorError: it leads nowhere, or to something else.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    found: Algorithm = doors.load(doors.find(SEARCH, name, WHERE), WHERE)
    return found


def own_searches(names: Sequence[AlgorithmName]) -> list[doors.Door]:
    """Return the doors of the names that are not built-in."""
    return [doors.find(SEARCH, name, WHERE) for name in names if name not in ALGORITHMS]


def own_of_search(config: SearchConfig) -> list[doors.Door]:
    """Return the doors of all that a search names and that is not built-in."""
    scorer = config.scorer.door()
    return [*own_searches(config.algorithms), *([scorer] if scorer.source != "built-in" else [])]


def make_searcher(name: AlgorithmName, config: SearchConfig, width: int, how: Aggregate) -> Searcher:
    """Return the algorithm of a name with the given width.

    Raises:
        ConfigError: it lacks a setting or a package.
        DataError: a file that it reads is missing or broken.
    """
    algorithm = algorithm_of(name)
    lacking = algorithm.lacks(config)
    if lacking is not None:
        raise ConfigError(lacking)
    return algorithm.build(config, width, how)
