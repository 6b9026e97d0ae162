"""The outcome, learned at the steps that already agree with it, classes balanced (SPRM, arXiv 2507.01951).

A step whose logit is on the other side than the outcome of its solution is left out: its label is likely
wrong, since a wrong solution has right steps, too. Goes with `prm.parameterisation: scalar_head`, `prm.head:
policy`, `supervised_prm.labels: outcome` and `prm.search_aggregate: geometric_mean`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import softplus

from airls_ray.objectives.whole_solutions import whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import Solutions

_EPSILON = 1e-5


def loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    solutions: Solutions,
    right_weight: float = 1.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the weighted mean of the cross-entropy over the steps that agree.

    With R and W the agreeing steps of right and wrong solutions of the update, one more each, a step weighs
    `right_weight` W / (R + W) in a right solution and R / (R + W) in a wrong one. As in their program
    (`dp_actor.py`), which counts them over a micro-batch, and here over the whole update.

    Args:
        logits: [S]; all steps take part, not the labelled ones alone.
        labels: [S]; a solution's outcome is the mean over its labelled steps, right above 1/2.
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        solutions: all of the update.
        right_weight: factor of right solutions; 1.5 in their program.
    """
    whole = whole_solutions(logits, labels, weights, step_rows)
    right, used = (whole.labels > 0.5)[step_rows], whole.labelled[step_rows]
    signed = logits.where(right, -logits)
    is_right = solutions.labels > 0.5
    rights = solutions.agreeing[is_right].sum().to(logits.dtype)
    wrongs = solutions.agreeing[~is_right].sum().to(logits.dtype)
    of_right = right_weight * (wrongs + 1.0) / (rights + wrongs + 2.0)
    of_wrong = (rights + 1.0) / (rights + wrongs + 2.0)
    taken = (used & (signed > 0)).to(logits.dtype)
    total = rights * of_right + wrongs * of_wrong + _EPSILON
    return (taken * of_right.where(right, of_wrong) * softplus(-signed)).sum() / total, {
        "agreeing_steps": taken.sum()
    }
