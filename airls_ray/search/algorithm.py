"""What a search algorithm is to users: a name, how it is made, and which answer rule its authors use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from airls_ray.config.search_section import AnswerRule, SearchConfig
from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import SearchState, Want

Build = Callable[[SearchConfig, int, Aggregate], Searcher]
Lacks = Callable[[SearchConfig], str | None]


def nothing(config: SearchConfig) -> str | None:
    """What most algorithms lack."""
    return None


@dataclass(frozen=True)
class Algorithm:
    """A search algorithm as users name it."""

    label: str
    answer: AnswerRule
    build: Build
    lacks: Lacks = nothing
    """What is missing before it can be built (a file, a package) and what to do, as a sentence; else None."""


class Planned(Searcher):
    """A function, or a class that is no `Searcher`, as one."""

    def __init__(self, plan: Callable[[SearchState], list[Want]], aggregate: Aggregate) -> None:
        """`plan`: see `Searcher.plan`."""
        self._plan, self.aggregate = plan, aggregate

    def plan(self, state: SearchState) -> list[Want]:
        """As the function says."""
        return list(self._plan(state))


def make_algorithm(found: Any, options: Mapping[str, Any]) -> Algorithm:
    """Return what a door names as an algorithm, tried on a search that has not begun.

    Raises:
        DoorError: it takes other arguments, or its first round asks for nothing that can be sampled.
    """
    algorithm = found if isinstance(found, Algorithm) else _algorithm_of(found)
    if algorithm.lacks(SearchConfig()) is not None:
        return algorithm  # it says so when it is made with a configuration
    searcher = algorithm.build(SearchConfig(), 4, "prod")
    wants = searcher.plan(searcher.start(0))
    if not wants or not all(isinstance(one, Want) for one in wants):
        raise DoorError(f"plans {wants!r:.60} for its first round, and it must be a list of Want, not empty")
    try:
        searcher.ask(searcher.start(0))
    except ValueError as error:
        raise DoorError(f"plans a first round that cannot be: {error}") from None
    return algorithm


def _algorithm_of(found: Any) -> Algorithm:
    if not callable(found):
        raise DoorError(f"is {found!r:.40}, which is neither a class nor a function")
    named = set(inspect.signature(found).parameters)
    label: str = getattr(found, "label", getattr(found, "__name__", "search"))
    answer: Any = getattr(found, "answer", "best")
    if answer not in get_args(AnswerRule):
        raise DoorError(f"has the answer rule {answer!r}, and there are {', '.join(get_args(AnswerRule))}")
    if inspect.isclass(found):
        if not hasattr(found, "plan") or "width" not in named:
            raise DoorError("is a class without `plan(state)`, or without `width` at its making")

        def build(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
            given = {"width": width, "aggregate": how, "config": config}
            made: Any = found(**{name: value for name, value in given.items() if name in named})
            return made if isinstance(made, Searcher) else Planned(made.plan, how)

    else:
        if named != {"state", "width"}:
            taken = ", ".join(sorted(named)) or "nothing"
            raise DoorError(f"takes {taken}, and it must take state and width")

        def build(config: SearchConfig, width: int, how: Aggregate) -> Searcher:
            return Planned(lambda state: list(found(state=state, width=width)), how)

    return Algorithm(label, answer, build)


SEARCH = Kind(
    name="search",
    protocol=(
        "a function plan(state, width) that returns the next round's list of Want, or a class with "
        "plan(state) that is made with width (and, as it likes, aggregate and config), or an Algorithm"
    ),
    package="airls_ray.search.algorithms",
    attribute="ALGORITHM",
    example="best_of_n",
    make=make_algorithm,
)
"""Searches (`search.algorithms`)."""
