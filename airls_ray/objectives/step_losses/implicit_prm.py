"""The outcome of a whole solution from the sum of its steps' logits (implicit PRM, arXiv 2412.01981).

With `prm.parameterisation: log_prob` a step's logit is its log-ratio to the policy, so the model learns from
outcomes alone what each step is worth. Goes with `supervised_prm.labels: outcome` and
`prm.search_aggregate: odds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from airls_ray.objectives.whole_solutions import whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import StepNormaliser


def loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    normaliser: StepNormaliser,
    beta: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over solutions of the cross-entropy of beta sum_t logit_t.

    Args:
        logits: [S].
        labels: [S]; a solution's is the mean over its labelled steps.
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        normaliser: its `rollouts` divide the sum.
        beta: scale of the log-ratio. 0.05 [P] is for responses of hundreds of tokens; search scores read the
            logits with 1.
    """
    sums, outcomes, labelled = whole_solutions(logits, labels, weights, step_rows)
    losses = binary_cross_entropy_with_logits(beta * sums, outcomes, reduction="none")
    return (losses * labelled).sum() / normaliser.rollouts, {}
