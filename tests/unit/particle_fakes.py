"""Steps told to a particle search by hand."""

from __future__ import annotations

from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Finish, SearchState


def step(score: float, finish: Finish = "step", token: int = 5) -> Child:
    return Child((token,), -1.0, (score,), finish)


def tell(searcher: Searcher, state: SearchState, *children: Child) -> None:
    """Answer the round's expansions with these children in turn."""
    rest = list(children)
    for ask in searcher.ask(state):
        searcher.tell(state, ask.ticket, [rest.pop(0) for _ in range(ask.want.count)])
    assert not rest


def nodes_asked(searcher: Searcher, state: SearchState) -> list[int]:
    return [ask.want.node for ask in searcher.ask(state) for _ in range(ask.want.count)]
