"""The outcome at every step, less a penalty where the PRM calls the step wrong (CAPO, arXiv 2508.02298)."""

from __future__ import annotations

from torch import Tensor


def transform(
    rewards: Tensor,
    step_rows: Tensor,
    outcomes: Tensor,
    threshold: float = 0.5,
    whole: float = 2.0,
    penalty: float = 1.0,
) -> Tensor:
    """Return whole o - penalty 1[r < threshold] [S].

    CAPO (arXiv 2508.02298) with the verdict of any PRM in the place of a language model's critique. The
    published weights leave a right rollout with a wrong step above every wrong one. Rewards are not summed
    over later steps there: `method.step_return: immediate`, `method.step_weight: 1`.

    Args:
        rewards: float [S].
        step_rows: int64 [S].
        outcomes: float [N], in [0, 1].
        threshold: a step whose reward is below is wrong, in units of `prm.reward`.
        whole: weight of the outcome [P]; 0 where `method.step_weight` leaves it an advantage of its own.
        penalty: of a wrong step [P].
    """
    wrong = (rewards < threshold).to(rewards.dtype)
    return whole * outcomes[step_rows].to(rewards.dtype) - penalty * wrong
