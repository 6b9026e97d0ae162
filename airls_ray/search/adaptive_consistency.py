"""Adaptive consistency: whole responses until the vote over their answers is decided."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.decided_vote import Criterion, chance_of_lead, fewest_votes
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class AdaptiveConsistency(Searcher):
    """At most `width` samples of the policy, in rounds (Aggarwal et al. 2023, arXiv 2305.11860).

    The first round has as many as could decide a vote if all agreed; the next ones have `batch`. So with a
    batch of 1 it ends where the paper's loop does, which asks after every sample.
    """

    reads_answers: ClassVar[bool] = True

    width: int
    threshold: float = 0.95
    """Least probability that the leading answer leads (`decided_vote.chance_of_lead`)."""
    batch: int = 1
    criterion: Criterion = "beta"
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """More samples, unless there are enough or the vote is decided."""
        sampled = len(state.finished())
        if sampled >= self.width or (sampled and self._is_decided(state)):
            return []
        count = self.batch if sampled else fewest_votes(self.threshold)
        return [Want(ROOT, min(count, self.width - sampled), whole=True)]

    def _is_decided(self, state: SearchState) -> bool:
        """Responses without an answer have no vote."""
        votes = Counter(answer for answer in state.answers.values() if answer is not None)
        return chance_of_lead(list(votes.values()), self.criterion) >= self.threshold
