"""The protocol of a search, and the one thing that all algorithms share: rounds of expansions.

An algorithm is settings and `plan`: a pure function of the state that says what to expand next. `ask` gives
the expansions of the round under way, `tell` takes their answers in any order and any number of times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from airls_ray.config.search_section import AnswerRule
from airls_ray.evaluation.steps import Aggregate, ScoreKind
from airls_ray.search.tree import Child, Expansion, Node, SearchState, Want
from airls_ray.seeding import derive_seed


class Searcher(ABC):
    """Settings of an algorithm. The state belongs to the caller: one searcher serves all problems.

    Algorithms break ties by the order of the nodes, so that equal scores give equal searches.
    """

    reads_answers: ClassVar[bool] = False
    """Whether `plan` needs the answers of finished responses (`state.answers`): a grader's call a round."""
    aggregate: Aggregate
    """How step scores become the score of a prefix."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it asks for steps behind a step (`Want.lookahead`), which not every engine gives."""
        return False

    @abstractmethod
    def plan(self, state: SearchState) -> list[Want]:
        """Say what to expand next; nothing means that the search is over.

        Called once a round, when all answers of the one before are in the tree (`state.last`). It may
        change `state.data` and nothing else.
        """

    def start(self, seed: int, kind: ScoreKind = "probability") -> SearchState:
        """A search that has not begun; all its random numbers derive from `seed`. `kind`: of its scores."""
        return SearchState(seed, kind=kind)

    def ask(self, state: SearchState) -> list[Expansion]:
        """Return the expansions that have no answer yet, of a new round where none is under way.

        Empty when the search is over (`done`), and then only.
        """
        if state.over:
            return []
        if not state.pending:
            self._begin(state, self.plan(state))
        return [one for ticket, one in state.pending.items() if ticket not in state.told]

    def tell(self, state: SearchState, ticket: int, children: Sequence[Child]) -> None:
        """Take the answer to an expansion; a ticket that is answered or unknown changes nothing.

        Raises:
            ValueError: the number of children is not the one asked for, or a score is outside [0, 1].
        """
        if ticket not in state.pending or ticket in state.told:
            return
        _check_children(state.pending[ticket], children)
        state.told[ticket] = tuple(children)
        if len(state.told) == len(state.pending):
            self._end_round(state)

    def done(self, state: SearchState) -> bool:
        """Whether nothing more will be asked."""
        return state.over

    def leaves(self, state: SearchState) -> list[int]:
        """Finished responses among which the answer is chosen, oldest first."""
        return state.finished()

    def vote_weights(self, state: SearchState) -> dict[int, float]:
        """Log-weights of `leaves` in a weighted vote, up to a common constant: their log-scores."""
        return {node: state.log_score(node, self.aggregate) for node in self.leaves(state)}

    def answer_rule(self, state: SearchState) -> AnswerRule | None:
        """Rule of this problem's answer where problems have different ones; None: that of the run."""
        return None

    def stop(self, state: SearchState) -> None:
        """End the search here (a budget is used up); expansions under way are dropped."""
        state.pending, state.told, state.over = {}, {}, True

    def _begin(self, state: SearchState, wants: Sequence[Want]) -> None:
        for want in wants:
            if want.count < 1 or state.nodes[want.node].finished:
                raise ValueError(f"a search asked for an expansion that cannot be: {want}")
            seed = derive_seed(state.seed, "expansion", state.tickets)
            state.pending[state.tickets] = Expansion(state.tickets, want, seed)
            state.tickets += 1
        state.over = not wants

    def _end_round(self, state: SearchState) -> None:
        state.last = []
        for ticket, expansion in state.pending.items():
            for child in state.told[ticket]:
                state.last.append(len(state.nodes))
                state.nodes.append(Node.of(expansion.want.node, child))
        state.pending, state.told = {}, {}
        state.rounds += 1


def _check_children(expansion: Expansion, children: Sequence[Child]) -> None:
    if len(children) != expansion.want.count:
        raise ValueError(
            f"expansion {expansion.ticket} asked for {expansion.want.count} children, got {len(children)}"
        )
    for child in children:
        if not all(0.0 <= score <= 1.0 for score in child.scores):
            raise ValueError(f"scores must lie in [0, 1], but a child has {child.scores}")
