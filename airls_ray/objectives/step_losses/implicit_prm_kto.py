"""The outcome of a solution from the sum of its logits above a reference point: KTO (arXiv 2412.01981).

The implicit PRM by the objective of KTO (arXiv 2402.01306) instead of cross-entropy. Goes with the same
settings as `implicit_prm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from airls_ray.objectives.whole_solutions import whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import Solutions, StepNormaliser


def loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    solutions: Solutions,
    normaliser: StepNormaliser,
    beta: float = 1.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over solutions of w (1 - sigmoid(+-beta (s - z))).

    s is the sum of a solution's logits, + for an outcome above 1/2. The reference point z is an estimate of
    the KL from the policy, at least 0 and without gradient: the mean of s over all solutions of the update.
    Their program (`KTOLoss` in `openrlhf/models/loss.py`) takes the mean over responses to other prompts, of
    which stored rollouts have no log-ratio.

    Args:
        logits: [S].
        labels: [S].
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        solutions: all of the update.
        normaliser: its `rollouts` divide the sum.
        beta: scale of the log-ratio; see `implicit_prm`.
        desirable_weight: w of right solutions.
        undesirable_weight: w of wrong ones.
    """
    whole = whole_solutions(logits, labels, weights, step_rows)
    point = solutions.sums.sum().div(max(solutions.sums.numel(), 1)).clamp(min=0.0).to(whole.sums.dtype)
    gains = beta * (whole.sums - point)
    right = desirable_weight * (1.0 - gains.sigmoid())
    wrong = undesirable_weight * (1.0 - (-gains).sigmoid())
    losses = right.where(whole.labels > 0.5, wrong) * whole.labelled
    return losses.sum() / normaliser.rollouts, {}
