"""Any search with a shorter longest response than the engines have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airls_ray.config.search_section import AnswerRule
from airls_ray.evaluation.steps import Aggregate, ScoreKind
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Expansion, SearchState, Want


@dataclass(frozen=True)
class Capped(Searcher):
    """`inner`, whose responses end after `most` tokens with finish "length"."""

    inner: Searcher
    most: int

    @property
    def aggregate(self) -> Aggregate:  # type: ignore[override]
        """As of the search that is capped."""
        return self.inner.aggregate

    @property
    def reads_answers(self) -> bool:  # type: ignore[override]
        """As of the search that is capped."""
        return self.inner.reads_answers

    @property
    def looks_ahead(self) -> bool:
        """As of the search that is capped."""
        return self.inner.looks_ahead

    def answer_rule(self, state: SearchState) -> AnswerRule | None:
        """As of the search that is capped."""
        return self.inner.answer_rule(state)

    def vote_weights(self, state: SearchState) -> dict[int, float]:
        """As of the search that is capped."""
        return self.inner.vote_weights(state)

    def plan(self, state: SearchState) -> list[Want]:
        """As of the search that is capped."""
        return self.inner.plan(state)

    def start(self, seed: int, kind: ScoreKind = "probability") -> SearchState:
        """As of the search that is capped."""
        return self.inner.start(seed, kind)

    def ask(self, state: SearchState) -> list[Expansion]:
        """Return its expansions, each cut where the response would grow too long."""
        return [replace(one, want=self._cut(state, one.want)) for one in self.inner.ask(state)]

    def tell(self, state: SearchState, ticket: int, children: Sequence[Child]) -> None:
        """See `Searcher.tell`; a child that fills the response ends it."""
        if ticket in state.pending:
            used = len(state.response(state.pending[ticket].want.node))
            children = [self._end(child, used) for child in children]
        self.inner.tell(state, ticket, children)

    def done(self, state: SearchState) -> bool:
        """As of the search that is capped."""
        return self.inner.done(state)

    def leaves(self, state: SearchState) -> list[int]:
        """As of the search that is capped."""
        return self.inner.leaves(state)

    def stop(self, state: SearchState) -> None:
        """As of the search that is capped."""
        self.inner.stop(state)

    def _cut(self, state: SearchState, want: Want) -> Want:
        left = self.most - len(state.response(want.node))
        return replace(want, max_tokens=left if want.max_tokens is None else min(left, want.max_tokens))

    def _end(self, child: Child, used: int) -> Child:
        full = used + len(child.tokens) >= self.most
        return (
            replace(child, finish="length", ahead=(), ahead_tokens=())
            if full and child.finish in ("step", "partial")
            else child
        )
