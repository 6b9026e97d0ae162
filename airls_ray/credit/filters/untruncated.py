"""Responses that ended by themselves (overlong filtering of DAPO, arXiv 2503.14476)."""

from __future__ import annotations

from torch import Tensor


def keep(truncated: Tensor) -> Tensor:
    """Return whether a rollout ended before the limit: bool [N].

    Args:
        truncated: bool [N].
    """
    return ~truncated
