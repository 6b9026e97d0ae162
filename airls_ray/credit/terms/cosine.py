"""Right short responses earn more than long ones, wrong short ones lose more (cosine, arXiv 2502.03373)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def term(
    outcomes: Tensor,
    lengths: Tensor,
    truncated: Tensor,
    max_response_tokens: int,
    right: Sequence[float] = (2.0, 1.0),
    wrong: Sequence[float] = (-10.0, 0.0),
    truncated_value: float = -10.0,
) -> Tensor:
    """Return a reward that goes from its value at length 0 to that at the limit by a cosine: float32 [N].

    The cosine reward of "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373) and its
    authors' program: b + (a - b) (1 + cos(pi length / limit)) / 2 for values a and b. It is the whole reward
    there: `method.outcome_weight: 0`.

    Args:
        outcomes: float [N]; right is above 0.5.
        lengths: int64 [N], tokens.
        truncated: bool [N]; a response that was cut off, or has reached the limit, earns `truncated_value`.
        max_response_tokens: the limit.
        right: values of right responses at length 0 and at the limit [P].
        wrong: those of wrong responses [P].
        truncated_value: of one that does not end [P].
    """
    share = (1.0 + torch.cos(math.pi * lengths.double() / max_response_tokens)) / 2.0
    (right_short, right_long), (wrong_short, wrong_long) = right, wrong
    value = torch.where(
        outcomes > 0.5,
        right_long + (right_short - right_long) * share,
        wrong_long + (wrong_short - wrong_long) * share,
    )
    cut = truncated | (lengths >= max_response_tokens)
    return torch.where(cut, torch.full_like(value, truncated_value), value).float()
