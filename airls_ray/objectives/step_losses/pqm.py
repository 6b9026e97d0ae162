"""Ranking of a solution's steps, wrong ones below right ones by a margin (PQM, arXiv 2410.11287, eq. 10).

The step logits are read as Q-values. Their program counts the right step itself twice in the denominator from
the second right step on; the paper's formula, and this, do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import StepNormaliser


def loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    positions: Tensor,
    normaliser: StepNormaliser,
    zeta: float = 4.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over solutions.

    Of a solution with right steps c_1..c_C, wrong ones W and Q_{c_0} = 0 the mean over t of
    -log(exp Q_{c_t} / (sum_{q <= t} exp Q_{c_q} + sum_{w in W} exp(Q_w + zeta))); the term of t = 0 is there
    if W is not empty.

    Args:
        logits: [S], Q-values.
        labels: [S]; right above 1/2.
        weights: [S], 0 for a step without a label, which has no part.
        step_rows: [S].
        positions: [S].
        normaliser: its `rollouts` divide the sum.
        zeta: the margin; 4 [P].
    """
    right, wrong = (weights > 0) & (labels > 0.5), (weights > 0) & (labels <= 0.5)
    same = step_rows[:, None] == step_rows
    steps = torch.where(wrong, logits + zeta, logits)
    none = torch.zeros_like(logits[:, None])  # Q of c_0

    def log_sum(counted: Tensor) -> Tensor:
        return torch.cat([none, steps.masked_fill(~counted, float("-inf"))], 1).logsumexp(1)

    up_to = same & right & (positions <= positions[:, None])
    of_right = log_sum(up_to | (same & wrong)) - logits
    of_none = log_sum(same & wrong)  # the same for every step of a solution
    rights = (same & right).sum(1)
    any_wrong = (same & wrong).any(1)
    # The term of c_0 once for a solution: at its first labelled step.
    labelled = same & (weights > 0)
    first = (weights > 0) & ~(labelled & (positions < positions[:, None])).any(1)
    terms = torch.where(right, of_right, 0.0) + torch.where(first & any_wrong, of_none, 0.0)
    return (terms / (rights + any_wrong).clamp(min=1)).sum() / normaliser.rollouts, {}
