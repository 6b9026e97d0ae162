"""The importance-weighted objective of rePIRL (arXiv 2602.07832): maximum-entropy IRL over whole responses.

    rbar(tau) = mean_t phi(tau)[t]
    w_j       = exp(sum_t phi(tau_j)[t]) / pi(tau_j)                      for failed rollouts j
    L         = sum_j w_j rbar(tau_j) / sum_j w_j - mean_{expert} rbar(tau)

pi is the density that sampled tau_j, which for old rollouts is not the current policy's. The weights are
computed in log space, detached and normalised over the rollouts of each problem: they turn samples of the
policy into samples of exp(sum phi), whose mean reward is the gradient of log Z(q), the problem's own
partition function.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def log_weights(
    phi_sums: Tensor,
    log_pi_sums: Tensor,
    lengths: Tensor,
    how: Literal["mean", "sum", "none"],
    temperature: float = 1.0,
) -> Tensor:
    """Return the logarithm of each rollout's weight, not normalised: float64 [N].

    Args:
        phi_sums: [N], sum of phi over the response tokens.
        log_pi_sums: [N], log pi(tau).
        lengths: [N], response tokens.
        how: `sum` as in the paper; `mean` divides by the length; `none` is 0.
        temperature: divides the result.

    Raises:
        ValueError: `how` is unknown.
    """
    if how == "none":
        return torch.zeros_like(phi_sums, dtype=torch.float64)
    if how not in ("mean", "sum"):
        raise ValueError(f"how must be mean, sum or none, but is {how!r}")
    logs = phi_sums.double() - log_pi_sums.double()
    return (logs / lengths.clamp(min=1) if how == "mean" else logs) / temperature


def weight_multipliers(
    logs: Tensor, base: Tensor, max_weight: float = 0.0, groups: Tensor | None = None
) -> Tensor:
    """Return the factor m of each row's base weight, so that sum base m = sum base in a group: float64 [N].

    A row may stand for several equal rollouts; its base weight then counts them.

    Args:
        logs: [N], from `log_weights`.
        base: [N], weight of each row without importance weights; rows with 0 get 0.
        max_weight: largest factor (the mean factor of a group is 1); what is cut off goes to the others in
            proportion. 0 turns it off.
        groups: int64 [N], problem of each row; None: all rows are one group.
    """
    if groups is None:
        return _multipliers(logs, base, max_weight)
    factors = torch.zeros_like(logs)
    for group in groups.unique().tolist():
        rows = groups == group
        factors[rows] = _multipliers(logs[rows], base[rows], max_weight)
    return factors


def _multipliers(logs: Tensor, base: Tensor, max_weight: float) -> Tensor:
    used = base > 0
    if not bool(used.any()):
        return torch.zeros_like(logs)
    share = base.double() / base.double().sum()
    raw = torch.where(used, (logs - logs[used].max()).exp(), torch.zeros_like(logs))
    factors = raw / (share * raw).sum()
    if max_weight <= 0:
        return factors
    # Capping raises the others, which may pass the cap in turn: at most N rounds, a few in practice.
    limit = max(max_weight, 1.0)
    capped = torch.zeros_like(used)
    for _ in range(int(used.sum())):
        over = used & ~capped & (factors > limit)
        if not bool(over.any()):
            break
        capped |= over
        free = used & ~capped
        left = 1.0 - (share[capped] * limit).sum()
        factors = torch.where(capped, torch.full_like(factors, limit), factors)
        if bool(free.any()):  # relative to their own largest: beside a capped one theirs may be 0
            raw = torch.where(free, (logs - logs[free].max()).exp(), torch.zeros_like(logs))
            factors = torch.where(free, raw * left / (share * raw).sum(), factors)
    return factors


def effective_sample_size(factors: Tensor, base: Tensor, rollouts: float) -> float:
    """Return (sum w)^2 / sum w^2 over the single rollouts; between 1 and their number, 0 without any.

    Args:
        factors: [N], from `weight_multipliers`.
        base: [N], the rows' base weights; a row may stand for several of the rollouts.
        rollouts: how many rollouts the rows stand for.
    """
    total = float(base.double().sum())
    if total == 0.0:
        return 0.0
    return rollouts / float((base.double() / total * factors.square()).sum())


def repirl_loss(
    phi: Tensor, expert_weights: Tensor, policy_weights: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the micro-batch's share of the loss, and metrics as sums.

    Args:
        phi: [R], outputs at the response tokens, with gradient.
        expert_weights: [R], weight of the sequence divided by its length; 0 on the other side.
        policy_weights: [R], the same with the importance weight, detached.

    Returns:
        sum policy_weights phi - sum expert_weights phi; with weights of each side that sum to 1 over the
        update, the losses of all micro-batches add up to the formula above.
        Detached sums `expert_value`, `policy_value` (weighted phi), `expert_weight`, `policy_weight`.
    """
    expert, policy = (expert_weights * phi).sum(), (policy_weights * phi).sum()
    return policy - expert, {
        "expert_value": expert.detach(),
        "policy_value": policy.detach(),
        "expert_weight": expert_weights.sum(),
        "policy_weight": policy_weights.sum(),
    }
