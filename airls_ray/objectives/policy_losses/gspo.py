"""The clipped surrogate on the ratio of the whole response (GSPO, arXiv 2507.18071).

    s_i = (pi(y_i) / pi_old(y_i)) ** (1 / |y_i|)                                     eq. 7
    J   = mean_i min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i)            eq. 5

Published: `method.aggregation: sequence_mean`, `clip_low: 3.0e-4`, `clip_high: 4.0e-4`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, clamped, total_loss
from airls_ray.tensors.segments import segment_mean

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig


def loss(
    inputs: PolicyLossInputs, *, config: MethodConfig, normaliser: PolicyNormaliser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the clipped surrogate with s_i in the place of each token's ratio.

    Written in the paper's token form (eq. 13 and 14): the value is that of s_i, and the gradient goes through
    each token's own log-probability. Where all tokens of a response have the same advantage, value and
    gradient are those of eq. 5; where they differ (credit per step), each token keeps its own.

    Returns:
        See `total_loss`; the sums have `tokens`, `ratio`, `clip_share` and `approx_kl` (k3 of the old policy,
        by token).

    Raises:
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    lengths = inputs.row_offsets.diff()
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)
    by_token = inputs.logprobs - inputs.old_logprobs
    whole = segment_mean(by_token.detach(), rows, lengths.numel())[rows]
    ratio = clamped(whole + inputs.logprobs - inputs.logprobs.detach()).exp()
    clipped = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    surrogate = torch.minimum(ratio * inputs.advantages, clipped * inputs.advantages)
    log_ratio = clamped(by_token)
    sums = {
        "tokens": torch.ones_like(ratio),
        "ratio": ratio,
        "clip_share": (clipped * inputs.advantages < ratio * inputs.advantages).to(ratio.dtype),
        "approx_kl": log_ratio.exp() - 1.0 - log_ratio,
    }
    return total_loss(surrogate, sums, inputs, config, normaliser)
