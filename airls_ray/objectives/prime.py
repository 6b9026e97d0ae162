"""The implicit PRM of PRIME (arXiv 2502.01456, after 2412.01981): a causal model trained on outcomes.

    r_t  = beta (log phi(y_t) - log pi_ref(y_t))
    loss = cross-entropy of sigmoid(sum_t r_t) against the outcome

The sum of the token rewards is an outcome reward; each of them is then a process reward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from airls_ray.tensors.segments import segment_sum


def outcome_logits(log_ratios: Tensor, rows: Tensor, size: int, beta: float) -> Tensor:
    """Return beta times the sum of each row's log-ratios [size].

    Args:
        log_ratios: [A], log phi - log pi_ref of tokens (or steps: their sums).
        rows: int64 [A].
        size: number of rows.
        beta: scale.
    """
    return beta * segment_sum(log_ratios, rows, size)


def prime_loss(
    logits: Tensor,
    right_weights: Tensor,
    wrong_weights: Tensor,
    *,
    label_smoothing: float = 0.0,
    logit_clip: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted cross-entropy of a micro-batch's rollouts, and metrics as sums.

    Args:
        logits: [B], from `outcome_logits`.
        right_weights: [B], weight of the right rollouts that the row stands for.
        wrong_weights: [B], of the wrong ones.
        label_smoothing: targets are 1 - s and s.
        logit_clip: logits are clamped to +- this; 0: off.

    Returns:
        The loss; with weights 1 / rollouts it adds up to the mean over the update.
        Detached sums: `expert_weight`, `policy_weight` (right and wrong), `expert_correct`,
        `policy_correct`, `entropy`, `logit_abs` (weighted), as the AIRL discriminator names them.
    """
    bounded = logits.clamp(-logit_clip, logit_clip) if logit_clip > 0 else logits
    smooth = label_smoothing
    right = (1 - smooth) * right_weights + smooth * wrong_weights
    wrong = (1 - smooth) * wrong_weights + smooth * right_weights
    loss = (right * softplus(-bounded) + wrong * softplus(bounded)).sum()
    flat = logits.detach()
    probability, weight = torch.sigmoid(flat), right_weights + wrong_weights
    entropy = probability * softplus(-flat) + (1 - probability) * softplus(flat)
    return loss, {
        "expert_weight": right_weights.sum(),
        "policy_weight": wrong_weights.sum(),
        "expert_correct": right_weights[flat > 0].sum(),
        "policy_correct": wrong_weights[flat < 0].sum(),
        "entropy": (weight * entropy).sum(),
        "logit_abs": (weight * flat.abs()).sum(),
    }
