"""The AIRL discriminator over reasoning steps (Fu et al. 2018, arXiv 1710.11248; AIRL-S, 2508.14313).

    D_t = exp f_t / (exp f_t + pi(C_t)),   logit_t = f_t - l_t,   l_t = log pi(C_t), detached
    reward r_t = log D_t - log(1 - D_t) = f_t - l_t

Sign convention: a high logit means "expert" (reference trace), a label of 1 means expert.
S counts steps, or tokens where the action is a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from airls_ray.tensors.segments import segment_mean, segment_sum


@dataclass(frozen=True)
class DiscriminatorInputs:
    """One micro-batch of S steps of both classes."""

    logits_expert_is_high: Tensor
    """[S], with gradient."""
    labels_expert_is_one: Tensor
    """[S], float, 0 or 1."""
    weights: Tensor
    """[S]: `class_weights` of the whole update, cut to these steps."""


def reduce_to_steps(
    token_values: Tensor, step_index: Tensor, steps: int, how: Literal["mean", "sum"]
) -> Tensor:
    """Reduce values of response tokens [R] to their steps [S].

    Raises:
        ValueError: `how` is neither mean nor sum.
    """
    if how == "mean":
        return segment_mean(token_values, step_index, steps)
    if how == "sum":
        return segment_sum(token_values, step_index, steps)
    raise ValueError(f"how must be mean or sum, but is {how!r}")


def step_logits(f: Tensor, l: Tensor) -> Tensor:  # noqa: E741 - the name in the formula
    """Return logit = f - l [S]; no gradient flows into l, the policy's log-probability.

    For the scalar head f is its output at the step's last token; for the log-probability
    parameterisation f = log phi(C_t), and the logit is 0 everywhere while phi equals the policy.
    The same number is the log-odds reward.
    """
    return f - l.detach()


def shape_rewards(g: Tensor, h: Tensor, step_rows: Tensor) -> Tensor:
    """Return f = g + h(next) - h(now) [S], with h = 0 at the end of a row (Fu et al., eq. 4).

    Args:
        g: [S].
        h: [S], the potential of the state in which the step is taken: read it where the step's first
            token is predicted (`predict_index` at `TokenBatch.step_first`).
        step_rows: int64 [S], row of each step; a row's steps are consecutive.
    """
    last = torch.ones_like(step_rows, dtype=torch.bool)
    last[:-1] = step_rows[1:] != step_rows[:-1]
    after = torch.where(last, torch.zeros_like(h), h.roll(-1))
    return g + after - h


def class_weights(group: Tensor, is_expert: Tensor, pair_by_problem: bool) -> Tensor:
    """Weigh the steps of an update so that each class that occurs sums to 1/2.

    Unpaired: every step of a class weighs the same. Paired: policy steps weigh the same, and the
    reference steps of a problem together weigh as much as its policy steps do; a problem that has
    steps of one class only gets 0. Otherwise the discriminator learns which problems have many traces.

    Args:
        group: int64 [N], problem of each step.
        is_expert: bool [N].
        pair_by_problem: see above.

    Returns:
        float32 [N]; all 0 when paired and no problem has both classes.
    """
    expert = is_expert.bool()
    if not pair_by_problem:
        counts = torch.stack([(~expert).sum(), expert.sum()])  # a class with 0 is never read
        return (0.5 / counts.double())[expert.long()].float()
    ids, problem = torch.unique(group, return_inverse=True)
    policy_steps = torch.bincount(problem[~expert], minlength=ids.numel()).double()
    expert_steps = torch.bincount(problem[expert], minlength=ids.numel()).double()
    policy_steps = torch.where(expert_steps > 0, policy_steps, torch.zeros_like(policy_steps))
    share = 0.5 * policy_steps / policy_steps.sum().clamp(min=1)
    steps_of_class = torch.where(expert, expert_steps[problem], policy_steps[problem])
    return (share[problem] / steps_of_class.clamp(min=1)).float()


def discriminator_loss(
    inputs: DiscriminatorInputs, *, label_smoothing: float = 0.0, logit_clip: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted binary cross-entropy of a micro-batch, and metrics as sums.

    With weights of `class_weights` the losses of all micro-batches add up to
    1/2 mean_{reference} softplus(-logit) + 1/2 mean_{policy} softplus(logit).

    Args:
        inputs: logits, labels and weights.
        label_smoothing: s; targets are 1 - s and s.
        logit_clip: logits are clamped to +- this in the loss (a clamped one has no gradient); 0: off.

    Returns:
        The loss, a scalar.
        Detached sums: `expert_weight`, `policy_weight`; `expert_correct`, `policy_correct` (weights
        of the steps on their right side of 0; divide by the weight of the class);
        `entropy` (of D, nats) and `logit_abs` (before clipping), both weighted (divide by the sum of
        both weights); `expert_steps`, `policy_steps` (counts of steps with a weight).
    """
    logits, labels, weights = inputs.logits_expert_is_high, inputs.labels_expert_is_one, inputs.weights
    bounded = logits.clamp(-logit_clip, logit_clip) if logit_clip > 0 else logits
    targets = labels * (1.0 - 2.0 * label_smoothing) + label_smoothing
    loss = (weights * (targets * softplus(-bounded) + (1.0 - targets) * softplus(bounded))).sum()
    return loss, _metrics(logits.detach(), labels > 0.5, weights)


def _metrics(logits: Tensor, expert: Tensor, weights: Tensor) -> dict[str, Tensor]:
    probability = logits.sigmoid()
    entropy = probability * softplus(-logits) + (1.0 - probability) * softplus(logits)
    used = weights > 0
    return {
        "expert_weight": weights[expert].sum(),
        "policy_weight": weights[~expert].sum(),
        "expert_correct": weights[expert & (logits > 0)].sum(),
        "policy_correct": weights[~expert & (logits < 0)].sum(),
        "entropy": (weights * entropy).sum(),
        "logit_abs": (weights * logits.abs()).sum(),
        "expert_steps": (expert & used).sum(),
        "policy_steps": (~expert & used).sum(),
    }
