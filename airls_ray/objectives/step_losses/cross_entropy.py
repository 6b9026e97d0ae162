"""Binary cross-entropy of a step's logit against its label, hard or soft (arXiv 2312.08935, eq. 5).

An outcome reward model is the same with a label at the last step alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from airls_ray.config.prm_sections import PRMConfig
    from airls_ray.objectives.step_loss import StepNormaliser


def loss(
    logits: Tensor, labels: Tensor, weights: Tensor, normaliser: StepNormaliser, config: PRMConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the mean over all labelled steps, in nats.

    Args:
        logits: [S].
        labels: [S]; with `prm.label_smoothing` s a target is (1 - 2 s) label + s.
        weights: [S].
        normaliser: its `steps` divide the weighted sum.
        config: by `prm.logit_clip` logits are clamped to +- this (a clamped one has no gradient); 0: off.
    """
    clip, smoothing = config.logit_clip, config.label_smoothing
    bounded = logits.clamp(-clip, clip) if clip > 0 else logits
    targets = labels * (1.0 - 2.0 * smoothing) + smoothing
    losses = targets * softplus(-bounded) + (1.0 - targets) * softplus(bounded)
    return (weights * losses).sum() / normaliser.steps, {}
