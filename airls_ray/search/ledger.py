"""What a search has cost, on every axis, and where it must end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from airls_ray.search.tree import SearchState


@dataclass
class Ledger:
    """Costs of one problem's search. All but `seconds` depend on the search alone, not on the machine."""

    generations: int = 0
    """Continuations sampled, lookaheads included."""
    policy_tokens: int = 0
    """Tokens sampled from the policy, those thrown away included."""
    prefill_tokens: int = 0
    """Tokens of prompts and prefixes given to the policy, before any prefix cache."""
    prm_tokens: int = 0
    """Tokens that the scorer computed (a cached prefix costs nothing)."""
    flops: float = 0.0
    """Floating-point operations of policy and scorer: 2 x parameters x tokens computed; with a prefix cache
    a prefix is computed once."""
    kv_tokens: int = 0
    """Tokens of prompt and tree that are unique as prefixes: what a cache that shares them holds."""
    seconds: float = 0.0
    """Wall-clock seconds from the problem's first expansion to its last answer; live problems share them."""

    def add(self, other: Ledger) -> None:
        """Add the costs of another ledger to this one."""
        for name in AXES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> dict[str, float]:
        """Axis and amount."""
        return asdict(self)


AXES = tuple(field.name for field in fields(Ledger))


@dataclass(frozen=True)
class Limits:
    """Most that a search may cost; a search that has reached one of them asks for nothing more.

    A limit is checked between rounds: the round that crosses it is the last.
    """

    generations: float | None = None
    policy_tokens: float | None = None
    prefill_tokens: float | None = None
    prm_tokens: float | None = None
    flops: float | None = None
    kv_tokens: float | None = None
    seconds: float | None = None

    def reached(self, ledger: Ledger) -> str | None:
        """Return the axis whose limit is reached, or None."""
        for name in AXES:
            limit = getattr(self, name)
            if limit is not None and getattr(ledger, name) >= limit:
                return name
        return None


def unique_tokens(prompt: Sequence[int], state: SearchState) -> int:
    """Return the tokens of prompt and tree that are unique as prefixes (equal siblings share theirs)."""
    seen: dict[tuple[int, int], int] = {}
    ends = {0: 0}
    for at, node in enumerate(state.nodes[1:], 1):
        where = ends[node.parent]
        for token in node.tokens:
            where = seen.setdefault((where, token), len(seen) + 1)
        ends[at] = where
    return len(prompt) + len(seen)
