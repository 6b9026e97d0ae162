"""A reward in TRL's form that both sides of `peers.py` load where the policy solves nothing.

Rewards must differ within a group, or there is nothing to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def odd_ones(completions: Sequence[str], **_: Any) -> list[float]:
    """1 for each text with an odd number of the digit 1, else 0."""
    return [float(text.count("1") % 2) for text in completions]
