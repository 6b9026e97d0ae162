"""1 for a right response that is short among those to problems as hard (LASER-D, arXiv 2505.15612)."""

from __future__ import annotations

import torch
from torch import Tensor


def term(
    outcomes: Tensor, groups: Tensor, lengths: Tensor, max_response_tokens: int, least_tokens: int = 0
) -> Tensor:
    """Return 1 for a right response within the target length of its group's difficulty, else 0: float32 [N].

    LASER-D (arXiv 2505.15612, and its authors' program). Easy groups have an accuracy of at least 2/3, medium
    ones of at least 1/3, hard ones less: of n responses at least C = floor(2n/3), floor(n/3) and 1 are right.
    The target of a difficulty is the least length L for which C times the share of its responses of at most L
    tokens is 1 or more. There that share comes from other problems, measured now and then; here from the
    iteration's own [C], so that nothing is kept between iterations. Published: `weight: 0.5`.

    Args:
        outcomes: float [N]; right is above 0.5.
        groups: int64 [N], numbered from 0.
        lengths: int64 [N], tokens.
        max_response_tokens: the sampler's limit, the target where no length is enough.
        least_tokens: no target is below.
    """
    right = outcomes > 0.5
    counts = torch.bincount(groups)
    rate = torch.bincount(groups, weights=right.double()) / counts.clamp(min=1)
    difficulty = ((rate >= 1 / 3).long() + (rate >= 2 / 3).long())[groups]
    largest = int(counts.max()) if counts.numel() else 0
    targets = torch.full((3,), max_response_tokens)
    for level, at_least in enumerate((1, largest // 3, 2 * largest // 3)):
        known = lengths[difficulty == level].sort().values
        if at_least > 0 and known.numel():
            targets[level] = known[-(-known.numel() // at_least) - 1]
    return (right & (lengths <= targets.clamp(min=least_tokens)[difficulty])).float()
