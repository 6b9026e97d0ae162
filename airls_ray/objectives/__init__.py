"""Losses as pure functions on tensors."""

from airls_ray.objectives.airl import (
    DiscriminatorInputs,
    class_weights,
    discriminator_loss,
    reduce_to_steps,
    shape_rewards,
    step_logits,
)
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, policy_loss

__all__ = [
    "DiscriminatorInputs",
    "PolicyLossInputs",
    "PolicyNormaliser",
    "class_weights",
    "discriminator_loss",
    "policy_loss",
    "reduce_to_steps",
    "shape_rewards",
    "step_logits",
]
