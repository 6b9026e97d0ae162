"""Instance-adaptive scaling: as many whole responses as a problem of such a chance of success needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from airls_ray.evaluation.calibrators import adaptive_budget
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, SearchState, Want


@dataclass(frozen=True)
class InstanceAdaptive(Searcher):
    """Best-of-N whose N is the problem's own, at most `width` (Park et al. 2025, arXiv 2506.09338).

    The paper's PRM reads the chance of success off the problem alone. Here it is read off the mean score of
    the first `pilot` responses, which are among the N, by `success`: a calibration, or the mean itself.
    """

    width: int
    pilot: int = 4
    confidence: float = 0.99
    """C: probability that one of the responses is right."""
    success: Callable[[float], float] = float
    """Mean score of the first responses to the chance that one is right."""
    aggregate: Aggregate = "prod"

    def plan(self, state: SearchState) -> list[Want]:
        """The first responses, then the rest."""
        if not state.rounds:
            return [Want(ROOT, min(self.pilot, self.width), whole=True)]
        more = self._wanted(state) - len(state.finished())
        return [Want(ROOT, more, whole=True)] if state.rounds == 1 and more > 0 else []

    def _wanted(self, state: SearchState) -> int:
        scores = [state.value(node, self.aggregate) for node in state.finished()]
        return min(adaptive_budget(self.success(float(np.mean(scores))), self.confidence), self.width)
