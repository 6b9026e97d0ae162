"""PPO's clipped surrogate with a floor where the advantage is negative (dual clip, arXiv 1912.09729).

    max(min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), bound A)   where A < 0

Without it a bad token that has become far likelier than it was when it was sampled has a loss without bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from airls_ray.errors import DoorError
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, clamped, total_loss

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig


def loss(
    inputs: PolicyLossInputs, *, config: MethodConfig, normaliser: PolicyNormaliser, bound: float = 3.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the surrogate of `clipped`, which here is at least `bound` A where A is negative.

    Args:
        inputs: the micro-batch.
        config: coefficients and aggregation.
        normaliser: sizes of the update.
        bound: c, the largest ratio that a token of negative advantage counts with, above 1 [P].

    Returns:
        See `total_loss`; the sums have `tokens`, `ratio`, `clip_share` (tokens without gradient, by either
        bound) and `approx_kl` (k3 of the old policy).

    Raises:
        DoorError: the bound is not above 1.
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    if bound <= 1.0:
        raise DoorError(
            f"method.policy_loss: the option bound of dual_clip must be above 1, but is {bound:g}"
        )
    advantages = inputs.advantages
    log_ratio = clamped(inputs.logprobs - inputs.old_logprobs)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    single = torch.minimum(ratio * advantages, clipped * advantages)
    surrogate = torch.where(advantages < 0, torch.maximum(single, bound * advantages), single)
    sums = {
        "tokens": torch.ones_like(ratio),
        "ratio": ratio,
        "clip_share": (surrogate != ratio * advantages).to(ratio.dtype),
        "approx_kl": ratio - 1.0 - log_ratio,
    }
    return total_loss(surrogate, sums, inputs, config, normaliser)
