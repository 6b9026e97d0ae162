"""The clipped surrogate of PPO, on the ratio of each token (GRPO, RLOO, DAPO and all presets).

arXiv 1707.06347, eq. 7; separate clip bounds: DAPO, arXiv 2503.14476.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, clamped, total_loss

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig


def loss(
    inputs: PolicyLossInputs, *, config: MethodConfig, normaliser: PolicyNormaliser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), with rho = exp(logprobs - old_logprobs).

    Returns:
        See `total_loss`; the sums have `tokens`, `ratio`, `clip_share` and `approx_kl` (k3 of the old
        policy).

    Raises:
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    log_ratio = clamped(inputs.logprobs - inputs.old_logprobs)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    surrogate = torch.minimum(ratio * inputs.advantages, clipped * inputs.advantages)
    sums = {
        "tokens": torch.ones_like(ratio),
        "ratio": ratio,
        "clip_share": (clipped * inputs.advantages < ratio * inputs.advantages).to(ratio.dtype),
        "approx_kl": ratio - 1.0 - log_ratio,
    }
    return total_loss(surrogate, sums, inputs, config, normaliser)
