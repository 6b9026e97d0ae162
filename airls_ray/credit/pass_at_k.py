"""Advantages for the best of K responses instead of one: Pass@k Training (arXiv 2508.10751).

Every K of a group's n rollouts are a set that is rewarded by its best one. A set's advantage is its reward
against that of all sets, and a rollout's is the mean over the sets that it is in:

    A_i = (E[max | i in the set] - E[max]) / std[max]

For outcomes of 0 and 1 with m wrong ones, p = 1 - C(m, K) / C(n, K) and s = sqrt(p (1 - p)) (eq. 8, 9):

    right (1 - p) / s        wrong (1 - p - C(m - 1, K - 1) / C(n - 1, K - 1)) / s

A group of which every set is right teaches nothing more, so a policy is pushed where it seldom succeeds.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-12
"""Of the best of a set; below it all sets are alike but for rounding."""


def pass_at_k_advantages(rewards: Tensor, groups: Tensor, k: int) -> Tensor:
    """Return the advantage of each rollout, exactly 0 where every set of K of its group has the same best.

    Any rewards, not of 0 and 1 alone; with `k` 1 it is (r - mean) / std with the population's deviation.

    Args:
        rewards: float [N], finite.
        groups: int64 [N]; one of at most `k` rollouts gets 0.
        k: K, at least 1.

    Returns:
        float [N], in the type of `rewards`.
    """
    exact = rewards.double()
    found = torch.zeros_like(exact)
    for group in torch.unique(groups):
        rows = (groups == group).nonzero().squeeze(1)
        if rows.numel() > k:
            found[rows] = _of_group(exact[rows], k)
    return found.to(rewards.dtype)


def _of_group(rewards: Tensor, k: int) -> Tensor:
    """Advantages of one group of n > K rewards: float64 [n]."""
    n = rewards.numel()
    ordered, order = rewards.sort()
    # The reward of rank j is a set's best where the K - 1 others are of the j ranks below it.
    sets = [comb(rank, k - 1) / comb(n, k) for rank in range(n)]
    best = torch.tensor(sets, dtype=torch.float64, device=rewards.device)
    mean = (best * ordered).sum()
    variance = (best * (ordered - mean).square()).sum()
    if float(variance) < _LEAST_VARIANCE:
        return torch.zeros_like(rewards)
    with_it = comb(n - 1, k - 1)
    own = [comb(rank, k - 1) / with_it for rank in range(n)]
    # A better one of rank j is the best where the K - 2 others are of the j - 1 below it beside rollout i.
    above = [comb(rank - 1, k - 2) / with_it if k > 1 and rank > 0 else 0.0 for rank in range(n)]
    own_best = torch.tensor(own, dtype=torch.float64, device=rewards.device)
    above_best = torch.tensor(above, dtype=torch.float64, device=rewards.device)
    weighted = above_best * ordered
    better = weighted.sum() - weighted.cumsum(0)
    found = torch.empty_like(rewards)
    found[order] = (own_best * ordered + better - mean) / variance.sqrt()
    return found
