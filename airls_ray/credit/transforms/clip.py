"""min(r - threshold, 0): steps above the threshold earn nothing, others lose (`clip` of 2410.15115)."""

from __future__ import annotations

from torch import Tensor


def transform(rewards: Tensor, threshold: float = 0.5) -> Tensor:
    """Return min(r - threshold, 0), so that no number of steps adds to a rollout's reward [S].

    The clip mechanism of "On Designing Effective RL Reward at Training Time for LLM Reasoning" (arXiv
    2410.15115). There the threshold is such that most steps get 0. The authors put `delta` behind it.

    Args:
        rewards: float [S].
        threshold: eta, in units of `prm.reward` [C].
    """
    return (rewards - threshold).clamp(max=0.0)
