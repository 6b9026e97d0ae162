"""Right solutions above wrong ones of a problem by the logits of their last steps (Cooper, arXiv 2508.05613).

Goes with `supervised_prm.labels: outcome`, `supervised_prm.spoiled: true`, which makes the wrong ones of
right ones, `prm.parameterisation: scalar_head` and `prm.search_aggregate: last`. Updates are of whole
problems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from airls_ray.objectives.whole_solutions import last_steps, pairs_of_problems, whole_solutions

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import Solutions


def loss(
    logits: Tensor, labels: Tensor, weights: Tensor, step_rows: Tensor, solutions: Solutions
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over pairs of -log sigmoid(s_right - s_wrong).

    s is the logit of a solution's last step. As in their program (`recipe/cooper/dp_reward.py`), with all
    pairs of an update in the place of one a problem. Their reward model reads the reference answer, too.

    Args:
        logits: [S].
        labels: [S]; right above 1/2, by the mean over a solution's labelled steps.
        weights: [S]; a solution without a labelled step has no part.
        step_rows: [S].
        solutions: all of the update.
    """
    labelled = whole_solutions(logits, labels, weights, step_rows).labelled
    scores = last_steps(logits, step_rows, labelled.numel())
    return pairs_of_problems(scores, labelled, solutions.lasts, solutions), {}
