"""A PRM from labels of your own: how steps are labelled, and by what loss the PRM learns the labels.

Both are functions of what they name (`airls-ray list "label rule"` and `list "step loss"` say what there is);
the rest are their options. `own_step_labels.yaml` trains with both.
"""

import numpy as np
from torch import Tensor

from airls_ray.objectives.step_loss import StepNormaliser

Array = np.ndarray


def relative_progress(
    values: Array, positions: Array, outcomes: Array, groups: Array, step_rows: Array, least: float = 0.8
) -> Array:
    """A label rule: a step is good if it keeps at least this share of the value before it, and any at all.

    It is the built-in rule of this name, as one of your own would be written.

    Before the first step the value is the share of the problem's rollouts that are right.
    """
    start = np.bincount(groups, outcomes) / np.bincount(groups)
    before = np.where(positions > 0, np.roll(values, 1), start[groups[step_rows]])
    good: Array = (values > 0) & (values >= least * before)
    return good


def ranking(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    step_rows: Tensor,
    normaliser: StepNormaliser,
    margin: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A step loss: each good step above each bad one of its solution by a margin; a mean over solutions."""
    good, bad = weights * (labels > 0.5), weights * (labels <= 0.5)
    pairs = (step_rows[:, None] == step_rows) * good[:, None] * bad
    short = (margin - (logits[:, None] - logits)).clamp(min=0.0)
    of_solution = (step_rows[:, None] == step_rows).to(pairs.dtype) @ pairs.sum(1)
    loss = (pairs * short / of_solution.clamp(min=1.0)[:, None]).sum() / normaliser.rollouts
    return loss, {"good": good.sum()}
