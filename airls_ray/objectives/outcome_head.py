"""A scalar head with two outputs: whether a step is right, and how the solution ends (BiRM, 2503.04618)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser

_EPSILON = 1e-6
"""Least distance of a combined probability from 0 and 1, where its logit ends."""


def combined_logit(process: Tensor, outcome: Tensor, beta: float) -> Tensor:
    """Return the logit of (sigmoid(outcome) + beta sigmoid(process)) / (1 + beta), of any shape.

    The published score, outcome + beta process, as a probability: divided by 1 + beta, which keeps its order.
    There the two are plain numbers that are fitted to labels of 0 to 1; here sigmoids of logits [C].
    """
    mean = (torch.sigmoid(outcome) + beta * torch.sigmoid(process)) / (1.0 + beta)
    return torch.logit(mean, eps=_EPSILON)


def scored_logits(inputs: StepLossInputs, beta: float | None) -> Tensor:
    """Return the logits that score steps [S]: both outputs combined, where there is an outcome head."""
    if inputs.outcome_logits is None or beta is None:
        return inputs.logits
    return combined_logit(inputs.logits, inputs.outcome_logits, beta)


def outcome_head_error(inputs: StepLossInputs) -> Tensor:
    """Return the sum over the labelled steps of (sigmoid(outcome) - y)^2, where y is how the solution ends.

    y is the label of the solution's last labelled step: of completions and outcomes that is its outcome. The
    variant with outcomes of BiRM's program; the paper's labels are shares of right completions, beside those
    of a language model for the steps.

    Args:
        inputs: with `outcome_logits`.
    """
    assert inputs.outcome_logits is not None
    ends = torch.zeros_like(inputs.labels)
    if inputs.labels.numel():
        place = torch.arange(inputs.labels.numel(), device=inputs.labels.device)
        labelled = torch.where(inputs.weights > 0, place, -1)
        size = int(inputs.step_rows.max()) + 1
        last = torch.full((size,), -1, device=place.device).scatter_reduce(
            0, inputs.step_rows, labelled, "amax"
        )
        ends = inputs.labels[last.clamp(min=0)][inputs.step_rows]
    return (inputs.weights * (torch.sigmoid(inputs.outcome_logits) - ends) ** 2).sum()


def with_outcome_head(
    loss: Tensor, sums: dict[str, Tensor], inputs: StepLossInputs, normaliser: StepNormaliser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the outcome head's share to a step loss and its sums; nothing where there is none."""
    if inputs.outcome_logits is None:
        return loss, sums
    error = outcome_head_error(inputs)
    return loss + error / normaliser.steps, {**sums, "outcome_error": error.detach()}
