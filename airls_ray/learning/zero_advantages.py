"""Rollouts that teach nothing: all their advantages are 0, and so is their gradient.

Where every rollout of a group has the same outcome, GRPO and RLOO compare equal numbers. On easy and on hard
problems that is most of a batch; it needs a forward pass for the metrics, and no backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.tensors import PackedColumn, segment_sum
from airls_ray.tensors.segments import offsets_of

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig

_TRIED_ROLLOUTS = 64
_TRIED_TOKENS = 16
"""Of each of the made-up rollouts."""


def without_advantage(advantages: PackedColumn, rows: Tensor) -> Tensor:
    """Whether all advantages of a rollout are exactly 0: bool, one for each of `rows`.

    Args:
        advantages: one value for each response token.
        rows: int64, positions in the table.
    """
    taken = advantages.take(rows)
    owner = torch.repeat_interleave(torch.arange(taken.rows), taken.lengths)
    return segment_sum((taken.values != 0).float(), owner, taken.rows) == 0


def zero_advantage_is_zero_gradient(loss: CheckedLoss, method: MethodConfig) -> bool:
    """Try whether the loss of rollouts without advantages has no gradient, and is 0.

    It has one where a term beside the advantages pulls: a KL or entropy coefficient, PRL's rewards. The trial
    is on made-up log-probabilities whose ratios lie on both sides of every clip. Losses of the user's own are
    not tried, since they may rightly fail on numbers that no run has.

    Raises:
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    if not loss.built_in or method.sequence_mask > 0:  # the mask measures every rollout before the updates
        return False
    made = torch.Generator().manual_seed(0)
    size = _TRIED_ROLLOUTS * _TRIED_TOKENS
    logprobs, entropy = (-3 * torch.rand(size, generator=made) for _ in range(2))
    # Differences of up to three nats: ratios from 0.05 to 20.
    old, reference, sampler = (logprobs + 6 * torch.rand(size, generator=made) - 3 for _ in range(3))
    logprobs.requires_grad_()
    entropy.requires_grad_()
    lengths = torch.full((_TRIED_ROLLOUTS,), _TRIED_TOKENS)
    given = PolicyLossInputs(
        logprobs=logprobs,
        old_logprobs=old,
        advantages=torch.zeros(size),
        row_offsets=offsets_of(lengths),
        reference_logprobs=reference,
        entropy=entropy,
        sampler_logprobs=sampler,
    )
    with torch.enable_grad():
        value, _ = loss(given, method, PolicyNormaliser(size, _TRIED_ROLLOUTS, _TRIED_TOKENS))
        gradients = torch.autograd.grad(value, [logprobs, entropy], allow_unused=True)
    return value.item() == 0.0 and all(one is None or not one.any() for one in gradients)
