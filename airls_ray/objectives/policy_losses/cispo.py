"""Log-likelihood weighed by advantage and a clipped importance weight without gradient (CISPO, 2506.13585).

    J = mean_t sg(clip(rho_t, 1 - clip_low, 1 + clip_high)) A_t log pi(y_t)          eq. 4 and 5

No token loses its gradient. Published: `method.aggregation: token_mean`, and no lower bound
(`clip_low: 1.0`).
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
    """Raise the weighted log-likelihood, with rho = exp(logprobs - old_logprobs).

    Returns:
        See `total_loss`; the sums have `tokens`, `ratio`, `clip_share` (weights that were clipped, whatever
        the advantage) and `approx_kl` (k3 of the old policy).

    Raises:
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    log_ratio = clamped(inputs.logprobs - inputs.old_logprobs).detach()
    ratio = log_ratio.exp()
    weight = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    surrogate = weight * inputs.advantages * inputs.logprobs
    sums = {
        "tokens": torch.ones_like(ratio),
        "ratio": ratio,
        "clip_share": (weight != ratio).to(ratio.dtype),
        "approx_kl": ratio - 1.0 - log_ratio,
    }
    return total_loss(surrogate, sums, inputs, config, normaliser)
