"""What policy losses share: their inputs, the terms beside the surrogate, how tokens are averaged.

The surrogates are in `airls_ray/objectives/policy_losses/`, one file each. Token mean: DAPO, arXiv
2503.14476. Constant length: Dr. GRPO, arXiv 2503.20783. KL estimate k3: http://joschu.net/blog/kl-approx.html.
Truncated importance weights for the sampler's log-probabilities: TRL, verl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +- this many nats before `exp`, so that no token overflows."""


@dataclass(frozen=True)
class PolicyNormaliser:
    """Sizes of what learns in the whole update, over all ranks and micro-batches: losses then add up."""

    tokens: int
    """Response tokens."""
    rollouts: int
    """Rollouts with at least one response token."""
    max_response_tokens: int
    """Longest response that the configuration allows (not the longest one seen)."""


@dataclass(frozen=True)
class PolicyLossInputs:
    """One micro-batch of B rollouts with R response tokens; log-probabilities in nats."""

    logprobs: Tensor
    """[R]: of the policy that learns, with gradient."""
    old_logprobs: Tensor
    """[R]: of the same policy before the update, by the trainer's own forward pass."""
    advantages: Tensor
    """[R]."""
    row_offsets: Tensor
    """int64 [B + 1]: tokens of rollout b are `row_offsets[b]:row_offsets[b + 1]`."""
    reference_logprobs: Tensor | None = None
    """[R]: needed when the KL coefficient is above 0."""
    entropy: Tensor | None = None
    """[R], with gradient: needed when the entropy coefficient is not 0."""
    sampler_logprobs: Tensor | None = None
    """[R]: of the engine that sampled; needed when the importance cap is above 0."""


def total_loss(
    surrogate: Tensor,
    sums: Mapping[str, Tensor],
    inputs: PolicyLossInputs,
    config: MethodConfig,
    normaliser: PolicyNormaliser,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the update's loss, and metrics as sums.

    Per token: -w surrogate + beta kl - c entropy, with kl of `kl_estimator` and w the truncated importance
    weight (1 when off). Rollouts that the sequence mask leaves out have no loss; the normaliser must not
    count them.

    Args:
        surrogate: [R], what is to rise, with gradient.
        sums: values of tokens [R] that the surrogate measures, such as `ratio`.
        inputs: the micro-batch.
        config: coefficients and aggregation.
        normaliser: sizes of the update.

    Returns:
        A scalar: summed over all micro-batches and ranks it is the loss of the update. An engine
        that averages gradients over ranks has to multiply by their number.
        Sums over the R tokens, detached: those of `sums`, and where their input is given `reference_kl`,
        `entropy`, `importance_weight`, `sampler_difference` (absolute, in nats) and, with a sequence mask,
        `kept_share`.

    Raises:
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    _check(inputs, config)
    sums = dict(sums)
    if inputs.sampler_logprobs is not None:
        difference = inputs.old_logprobs - inputs.sampler_logprobs
        sums["sampler_difference"] = difference.abs()
        if config.importance_cap > 0:
            sums["importance_weight"] = clamped(difference).exp().clamp(max=config.importance_cap).detach()
            surrogate = surrogate * sums["importance_weight"]
        if config.sequence_mask > 0:
            kept = near_rollouts(difference.detach(), inputs.row_offsets, config.sequence_mask)
            sums["kept_share"] = kept
    token_loss = -surrogate
    if inputs.reference_logprobs is not None:
        sums["reference_kl"] = k3(inputs.logprobs, inputs.reference_logprobs)
        kl = sums["reference_kl"]
        if config.kl_estimator == "k2":
            kl = 0.5 * clamped(inputs.logprobs - inputs.reference_logprobs).square()
        token_loss = token_loss + config.kl_coefficient * kl
    if inputs.entropy is not None:
        sums["entropy"] = inputs.entropy
        token_loss = token_loss - config.entropy_coefficient * inputs.entropy
    if "kept_share" in sums:
        token_loss = token_loss * sums["kept_share"]
    loss = (token_loss * token_weights(inputs.row_offsets, config.aggregation, normaliser)).sum()
    return loss, {name: values.detach().sum() for name, values in sums.items()}


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) per token [R]: exp(d) - d - 1 with d = reference - policy.

    Never negative, unbiased for samples of the policy; its gradient is that of KL(reference || policy), since
    the samples' own dependence on the policy is not part of it. d is clamped to +-20.
    """
    d = clamped(reference_logprobs - logprobs)
    return d.exp() - d - 1.0


def near_rollouts(difference: Tensor, row_offsets: Tensor, limit: float) -> Tensor:
    """1 for the tokens of rollouts whose mean |difference| is at most `limit`, else 0: float [R].

    Args:
        difference: [R], nats: the learner's log-probability less the sampler's.
        row_offsets: int64 [B + 1].
        limit: nats per token.
    """
    lengths = row_offsets.diff()
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=difference.device), lengths)
    sums = torch.zeros(lengths.numel(), dtype=difference.dtype, device=difference.device)
    means = sums.index_add(0, rows, difference.abs()) / lengths.clamp(min=1)
    return (means <= limit).to(difference.dtype)[rows]


def token_weights(row_offsets: Tensor, aggregation: str, normaliser: PolicyNormaliser) -> Tensor:
    """Weight of each token's loss in the loss of the update: float32 [R].

    `token_mean`: 1 / tokens. `sequence_mean`: 1 / (rollouts * tokens of its rollout). `constant`:
    1 / (rollouts * max_response_tokens).

    Raises:
        ValueError: the aggregation is none of these.
    """
    lengths = row_offsets.diff()
    if aggregation == "token_mean":
        row_weights = torch.full_like(lengths, 1.0 / max(normaliser.tokens, 1), dtype=torch.float32)
    elif aggregation == "sequence_mean":
        row_weights = 1.0 / (lengths.clamp(min=1).to(torch.float32) * max(normaliser.rollouts, 1))
    elif aggregation == "constant":
        share = 1.0 / max(normaliser.rollouts * normaliser.max_response_tokens, 1)
        row_weights = torch.full_like(lengths, share, dtype=torch.float32)
    else:
        raise ValueError(f"aggregation must be token_mean, sequence_mean or constant, but is {aggregation!r}")
    return torch.repeat_interleave(row_weights, lengths)


def clamped(log_ratio: Tensor) -> Tensor:
    """Log-ratios within +- `LOG_RATIO_LIMIT`."""
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _check(inputs: PolicyLossInputs, config: MethodConfig) -> None:
    needs = {
        "kl_coefficient": (config.kl_coefficient, inputs.reference_logprobs, "reference_logprobs"),
        "entropy_coefficient": (config.entropy_coefficient, inputs.entropy, "entropy"),
        "importance_cap": (config.importance_cap, inputs.sampler_logprobs, "sampler_logprobs"),
        "sequence_mask": (config.sequence_mask, inputs.sampler_logprobs, "sampler_logprobs"),
    }
    for field, (value, given, name) in needs.items():
        if value != 0 and given is None:
            raise ValueError(f"method.{field} is {value}, which needs {name}, but none are given")
