"""Which tokens a sampler draws from: all of them, or by top-p, top-k and min-p the more probable ones.

What is recorded of a sample are the policy's log-probabilities at the temperature, over all tokens, truncated
or not: those that learners and scorers compute, too. The sampler's own would be larger by the logarithm of
what it left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Truncation:
    """Nothing is left out by default."""

    top_p: float = 1.0
    """Draw among the most probable tokens that together have this probability; 1: among all."""
    top_k: int = 0
    """Draw among so many of the most probable tokens; 0 or less: among all."""
    min_p: float = 0.0
    """Draw among tokens that have at least this share of the probability of the most probable one."""

    @classmethod
    def of(cls, section: Any) -> Truncation:
        """Return that of a section of the configuration (`rollout` or `search`)."""
        return cls(section.top_p, max(section.top_k, 0), section.min_p)

    @property
    def off(self) -> bool:
        """Whether all tokens can be drawn."""
        return not self.given()

    def given(self) -> Mapping[str, float]:
        """Return what is not as by default, by name: files that are older than a setting lack it."""
        default = asdict(WHOLE)
        return {name: value for name, value in asdict(self).items() if value != default[name]}


WHOLE = Truncation()
"""All tokens."""
