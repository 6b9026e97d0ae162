"""Mean squared error of a step's probability, the sigmoid of its logit, against its label, hard or soft."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import StepNormaliser


def loss(
    logits: Tensor, labels: Tensor, weights: Tensor, normaliser: StepNormaliser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over all labelled steps (the Brier score of hard labels)."""
    return (weights * (logits.sigmoid() - labels) ** 2).sum() / normaliser.steps, {}
