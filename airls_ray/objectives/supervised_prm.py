"""The objective of a supervised PRM: binary cross-entropy of a step's logit against its label.

Math-Shepherd (arXiv 2312.08935, eq. 5): labels from completions, hard (0 or 1) or soft (a share). An
outcome reward model is the same with a label at the last step alone. Sign convention: a high logit means
"good", a label of 1 means good. S counts steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class SupervisedInputs:
    """One micro-batch of S steps."""

    logits_good_is_high: Tensor
    """[S], with gradient: the PRM's output at the step's last token."""
    labels_good_is_one: Tensor
    """[S], float in [0, 1]; read only where there is a weight."""
    weights: Tensor
    """[S], float, none negative: 0 for a step without a label, 1 for one with."""


def supervised_prm_loss(
    inputs: SupervisedInputs,
    normaliser: float,
    *,
    label_smoothing: float = 0.0,
    logit_clip: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted binary cross-entropy of a micro-batch, and metrics as sums.

    With the sum of the weights of the whole update as normaliser, the losses of its micro-batches add
    up to the mean over all labelled steps.

    Args:
        inputs: logits, labels and weights.
        normaliser: what the weighted sum is divided by.
        label_smoothing: s; a target is (1 - 2 s) label + s.
        logit_clip: logits are clamped to +- this in the loss (a clamped one has no gradient); 0: off.

    Returns:
        The loss, a scalar, in nats.
        Detached weighted sums, to be divided by `weight`: `weight` itself, `correct` (logit and label
        are on the same side of 0 and 1/2), `label` and `logit_abs` (before clipping).
    """
    logits, weights = inputs.logits_good_is_high, inputs.weights
    used = weights > 0
    labels = inputs.labels_good_is_one.where(used, weights)  # an absent label may be nan
    bounded = logits.clamp(-logit_clip, logit_clip) if logit_clip > 0 else logits
    targets = labels * (1.0 - 2.0 * label_smoothing) + label_smoothing
    losses = targets * softplus(-bounded) + (1.0 - targets) * softplus(bounded)
    seen = logits.detach()
    sums = {
        "weight": weights.sum(),
        "correct": (weights * ((seen > 0) == (labels > 0.5))).sum(),
        "label": (weights * labels).sum(),
        "logit_abs": (weights * seen.abs()).sum(),
    }
    return (weights * losses).sum() / normaliser, sums
