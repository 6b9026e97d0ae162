"""A search that samples a little, sees how hard the problem is, and goes on as the search of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from airls_ray.config.search_section import AnswerRule
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Node, SearchState, Want

_PROBED, _DATA, _CHOICE, _SHARED, _LAG = "probed", "data", "choice", "shared", "lag"
"""In `state.data`: samples of the probe; the chosen search's own memory; its bin; whether the samples are its
own; rounds that the whole search is ahead of it."""


@dataclass(frozen=True)
class Choice:
    """What a bin of difficulty is searched by."""

    up_to: float
    """Ease of the easiest problem of the bin."""
    searcher: Searcher
    answer: AnswerRule
    """How its answer is chosen."""


@dataclass(frozen=True)
class Auto(Searcher):
    """The best search for a problem of such difficulty, by a plan (Snell et al. 2024, arXiv 2408.03314).

    The mean score of the first `probe` whole responses names the bin, as the mean of Best-of-N's responses
    made the bins. The bin's search then sees a tree of its own, which is a view of this one without the
    probe. Where its first wish is whole responses from the root (Best-of-N, votes), the probe's samples are
    among them. Else they are paid for and only answer if the search is stopped before it has an answer.
    """

    choices: tuple[Choice, ...]
    """Of the bins, the hardest first; above the last `up_to` the last one holds."""
    probe: int = 4
    aggregate: Aggregate = "prod"

    @property
    def reads_answers(self) -> bool:  # type: ignore[override]
        """Whether one of its searches does."""
        return any(choice.searcher.reads_answers for choice in self.choices)

    @property
    def looks_ahead(self) -> bool:
        """Whether one of its searches does."""
        return any(choice.searcher.looks_ahead for choice in self.choices)

    def plan(self, state: SearchState) -> list[Want]:
        """The probe, then what the chosen search wants."""
        if not state.rounds:
            return [Want(ROOT, self.probe, whole=True)]
        if _CHOICE not in state.data:
            return self._begin_choice(state)
        return self._plan_choice(state)

    def leaves(self, state: SearchState) -> list[int]:
        """Those of the chosen search; the probe's where it has none."""
        return self._own_leaves(state) or state.finished()

    def vote_weights(self, state: SearchState) -> dict[int, float]:
        """As the chosen search weighs its own."""
        if not self._own_leaves(state):
            return super().vote_weights(state)
        weights = self._chosen(state).searcher.vote_weights(_view(state))
        return {_outer(state, node): weight for node, weight in weights.items()}

    def answer_rule(self, state: SearchState) -> AnswerRule | None:
        """That of the chosen search."""
        return self._chosen(state).answer if _CHOICE in state.data else None

    def _begin_choice(self, state: SearchState) -> list[Want]:
        """Choose; samples that the chosen search would ask for itself are its first ones."""
        ease = float(np.mean([state.value(node, self.aggregate) for node in state.last]))
        choice = bin_of(ease, [one.up_to for one in self.choices])
        state.data.update({_PROBED: len(state.last), _CHOICE: choice, _DATA: {}, _LAG: 1, _SHARED: False})
        wants = self._wants_of_chosen(state)
        if not (len(wants) == 1 and wants[0] == Want(ROOT, wants[0].count, whole=True)):
            return _shifted(state, wants)
        state.data[_SHARED] = True
        more = wants[0].count - state.data[_PROBED]
        if more > 0:
            return [replace(wants[0], count=more)]
        state.data[_LAG] = 0  # its first round is over: the probe was all of it
        return self._plan_choice(state)

    def _plan_choice(self, state: SearchState) -> list[Want]:
        return _shifted(state, self._wants_of_chosen(state))

    def _wants_of_chosen(self, state: SearchState) -> list[Want]:
        """What it plans on its view; what it keeps between rounds is kept on the whole state."""
        view = _view(state)
        view.memory = state.memory
        wants = self._chosen(state).searcher.plan(view)
        state.memory = view.memory
        return wants

    def _own_leaves(self, state: SearchState) -> list[int]:
        """Finished responses of the chosen search, once there is one."""
        if _CHOICE not in state.data:
            return []
        return [_outer(state, node) for node in self._chosen(state).searcher.leaves(_view(state))]

    def _chosen(self, state: SearchState) -> Choice:
        return self.choices[state.data[_CHOICE]]


def bin_of(ease: float, up_to: Sequence[float]) -> int:
    """Return the first bin (the hardest is 0) whose easiest problem is at least as easy; else the last."""
    return next((at for at, bound in enumerate(up_to) if ease <= bound), len(up_to) - 1)


def _hidden(data: Mapping[str, Any]) -> int:
    """Nodes of the probe that the chosen search does not see."""
    return 0 if data[_SHARED] else int(data[_PROBED])


def _outer(state: SearchState, node: int) -> int:
    """The node of the whole search that is `node` to the chosen one."""
    return node + _hidden(state.data) if node != ROOT else ROOT


def _shifted(state: SearchState, wants: Sequence[Want]) -> list[Want]:
    return [replace(want, node=_outer(state, want.node)) for want in wants]


def _view(state: SearchState) -> SearchState:
    """The state as the chosen search sees it: its memory is a part of the whole search's."""
    hidden = _hidden(state.data)
    rounds = state.rounds - state.data[_LAG]
    last = [node - hidden for node in state.last if node > hidden]
    if state.data[_SHARED] and rounds == 1:
        last = list(range(1, len(state.nodes)))  # its first round: the probe and what was added to it
    return SearchState(
        state.seed,
        [state.nodes[ROOT], *(_moved(node, hidden) for node in state.nodes[1 + hidden :])],
        last,
        rounds,
        over=state.over,
        data=state.data[_DATA],
        kind=state.kind,
        answers={node - hidden: answer for node, answer in state.answers.items() if node > hidden},
    )


def _moved(node: Node, hidden: int) -> Node:
    return node if node.parent == ROOT or not hidden else replace(node, parent=node.parent - hidden)
