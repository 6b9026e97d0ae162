"""Falls to -1 over the last tokens that a response may have (`method.overlong_buffer_tokens`)."""

from __future__ import annotations

import torch
from torch import Tensor

_SHARE = 5  # DAPO's buffer is 4,096 tokens of 20,480


def term(lengths: Tensor, max_response_tokens: int, buffer_tokens: int | None = None) -> Tensor:
    """Return the soft over-length penalty of DAPO (arXiv 2503.14476, eq. 13), float32 [N] in [-1, 0].

    0 up to `max_response_tokens - buffer_tokens` tokens, then falling linearly to -1 at the limit.
    `buffer_tokens`: null: a fifth of the limit [P].
    """
    buffer = max_response_tokens // _SHARE if buffer_tokens is None else buffer_tokens
    if buffer == 0:
        return torch.zeros(lengths.shape)
    return ((max_response_tokens - buffer - lengths).float() / buffer).clamp(-1.0, 0.0)
