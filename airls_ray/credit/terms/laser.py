"""1 for a right response of at most so many tokens (LASER, arXiv 2505.15612)."""

from __future__ import annotations

from torch import Tensor


def term(
    outcomes: Tensor, lengths: Tensor, max_response_tokens: int, target_tokens: int | None = None
) -> Tensor:
    """Return 1 for a right response within the target length, else 0: float32 [N].

    The step reward of LASER (arXiv 2505.15612) and its authors' program. Published: `weight: 0.5`, 2,048 to
    8,192 of 16,384 tokens.

    Args:
        outcomes: float [N]; right is above 0.5.
        lengths: int64 [N], tokens.
        max_response_tokens: the sampler's limit.
        target_tokens: longest length that is rewarded; null: a quarter of the limit.
    """
    target = max_response_tokens // 4 if target_tokens is None else target_tokens
    return ((outcomes > 0.5) & (lengths <= target)).float()
