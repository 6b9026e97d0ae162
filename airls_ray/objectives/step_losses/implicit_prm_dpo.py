"""Right solutions above wrong ones of the same problem by the sums of their logits: DPO (arXiv 2412.01981).

The implicit PRM by the objective of DPO (arXiv 2305.18290) instead of cross-entropy. Goes with the same
settings as `implicit_prm`. Updates are of whole problems; one with equal outcomes teaches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from airls_ray.objectives.whole_solutions import pairs_of_problems, whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import Solutions


def loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    solutions: Solutions,
    beta: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over pairs of -log sigmoid(beta (s_right - s_wrong)).

    s is the sum of a solution's logits. They pair each right solution with one wrong one; here the pairs are
    all of an update, of solutions of one problem with outcomes above 1/2 and not.

    Args:
        logits: [S].
        labels: [S].
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        solutions: all of the update.
        beta: scale of the log-ratio. 0.05 [P] is for responses of hundreds of tokens; search scores read the
            logits with 1.
    """
    sums, _, labelled = whole_solutions(logits, labels, weights, step_rows)
    return pairs_of_problems(sums, labelled, solutions.sums, solutions, beta), {}
