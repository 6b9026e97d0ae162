"""Right rollouts of high step rewards and wrong ones of low, in equal numbers (PROF, arXiv 2509.03403)."""

from __future__ import annotations

import torch
from torch import Tensor

from airls_ray.tensors.segments import segment_mean

_ROUNDING = 1e-6  # 0.07 * 100 is a little above 7


def keep(
    outcomes: Tensor,
    groups: Tensor,
    rewards: Tensor,
    step_rows: Tensor,
    share: float = 0.5,
    both: bool = True,
) -> Tensor:
    """Return on which rollouts process and outcome agree, as many right as wrong ones: bool [N].

    The process consistency filter (arXiv 2509.03403): of n rollouts of a group m are kept, k+ right and k-
    wrong ones, such that k+ k- is largest. Dropped are the right ones with the lowest and the wrong ones
    with the highest mean step reward. That paper's penalty on single or too many steps is not here.

    Args:
        outcomes: float [N]; right is above 0.5.
        groups: int64 [N], numbered from 0.
        rewards: float [S], of a PRM.
        step_rows: int64 [S].
        share: m / n, rounded up to whole rollouts.
        both: false keeps the wrong ones in the order of the table, whatever their steps (PROF-POS).
    """
    right = outcomes > 0.5
    means = segment_mean(rewards.double(), step_rows, outcomes.numel())
    agreement = torch.where(right, means, -means if both else torch.zeros_like(means))
    classes = 2 * groups + right.long()
    size = 2 * (int(groups.max()) + 1) if groups.numel() else 0
    counts = torch.bincount(classes, minlength=size)
    wrong_count, right_count = counts[0::2], counts[1::2]
    kept = (share * (wrong_count + right_count).double() - _ROUNDING).ceil().long()
    right_kept = torch.minimum(torch.maximum((kept + 1) // 2, kept - wrong_count), right_count)
    most = torch.stack([kept - right_kept, right_kept], 1).flatten()
    order = torch.argsort(agreement, descending=True, stable=True)
    order = order[torch.argsort(classes[order], stable=True)]
    rank = torch.empty_like(classes)
    rank[order] = torch.arange(classes.numel()) - (counts.cumsum(0) - counts)[classes[order]]
    return rank < most[classes]
