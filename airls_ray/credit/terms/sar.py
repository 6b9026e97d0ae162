"""How much likelier the problem makes the response: the self-aligned reward (SAR, arXiv 2509.05489)."""

from __future__ import annotations

import torch
from torch import Tensor


def term(mean_logprobs: Tensor, mean_logprobs_alone: Tensor) -> Tensor:
    """Return clip((ppl(a) - ppl(a | q)) / ppl(a), -1, 1): float32 [N].

    The self-aligned reward (arXiv 2509.05489, and its authors' program, where its `weight` is 0.2). ppl is
    the perplexity of the response a under the policy, behind the problem q or behind an empty one. What does
    not depend on the problem earns nothing, so a response is better off without it.

    Args:
        mean_logprobs: float [N], nats per token behind the problem.
        mean_logprobs_alone: float [N], the same behind an empty problem. It costs a pass of the policy.
    """
    ratio = torch.exp(mean_logprobs_alone - mean_logprobs)  # ppl(a | q) / ppl(a)
    return (1.0 - ratio).clamp(-1.0, 1.0).float()
