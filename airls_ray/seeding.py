"""One seed for a run; every component derives its own from it, so that they stay independent."""

from __future__ import annotations

import hashlib

_SEED_BITS = 31  # vLLM, NumPy and PyTorch all take a non-negative 31-bit seed


def derive_seed(seed: int, *path: str | int) -> int:
    """Return the seed of the component at `path` (for example `"rollout", iteration, problem_id`).

    The result depends on every element of the path and on nothing else: not on the number of
    workers, on the order of calls or on the machine. Unit: an integer in [0, 2**31).
    """
    text = "/".join([str(seed), *(str(part) for part in path)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - _SEED_BITS)
