"""The steps' contributions to the outcome: the error of their sum, squared (SPA-RL, arXiv 2505.20732).

A step's logit is its contribution, in points of the outcome. Goes with `supervised_prm.labels: outcome`,
`prm.parameterisation: scalar_head`, `prm.search_aggregate: odds` (whose score rises with the sum) and, in
training, `prm.reward: f`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from airls_ray.objectives.whole_solutions import whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import StepNormaliser


def loss(
    logits: Tensor, labels: Tensor, weights: Tensor, step_rows: Tensor, normaliser: StepNormaliser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over solutions of (sum_t c_t - outcome)^2.

    As in their program (`prm/train_our_progress_model.py`).

    Args:
        logits: [S], c_t.
        labels: [S]; a solution's is the mean over its labelled steps.
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        normaliser: its `rollouts` divide the sum.
    """
    sums, outcomes, labelled = whole_solutions(logits, labels, weights, step_rows)
    return (labelled * (sums - outcomes) ** 2).sum() / normaliser.rollouts, {}
