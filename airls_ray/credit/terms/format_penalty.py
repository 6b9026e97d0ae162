"""-1 for a rollout without an answer of the required form (`method.format_penalty` is its weight)."""

from __future__ import annotations

from torch import Tensor


def term(unanswered: Tensor) -> Tensor:
    """Return -1 where the grader found no answer, else 0: float32 [N]."""
    return -unanswered.float()
