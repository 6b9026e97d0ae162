"""Seeded problem generators whose splits are disjoint whatever the seeds.

The split of a problem is decided by a hash of its content, never by a seed. A task supplies endless
`candidates`, the `split_of` one and how to `build` a problem from one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Generic, TypeVar

from airls_ray.errors import ConfigError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Problem, Split

Candidate = TypeVar("Candidate")

_BLOCK = 1024
"""Problems that share a random generator: a stream can start at any position at the cost of a block."""
_TEST_SHARE = 16
"""One problem in this many hashes to the test split."""
_TEST_SEED = 0
"""Fixed, so that everyone measures on the same test set."""
_FRUITLESS_DRAWS = 20_000
"""Draws without a new test problem after which the space counts as exhausted."""


def content_hash(text: str) -> int:
    """Return a 64-bit hash of `text` that is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def content_id(kind: str, text: str) -> str:
    """Return a problem id that depends on the content alone, for example `arithmetic-00ff...`."""
    return f"{kind}-{content_hash(text):016x}"


def split_by_hash(text: str) -> Split:
    """Return the split that `text` belongs to; about 1/16 of all texts are test problems."""
    return "test" if content_hash("split/" + text) % _TEST_SHARE == 0 else "train"


@dataclass(frozen=True)
class Generator(Generic[Candidate]):
    """What a generated task supplies; see the module's docstring."""

    candidates: Callable[[Random, Split], Iterator[Candidate]]
    split_of: Callable[[Candidate], Split | None]
    """None: the candidate belongs to neither split."""
    build: Callable[[Candidate], Problem]

    def train(self, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield training problems without end, from position `start` of the stream of `seed`."""
        skip = start % _BLOCK
        for block in count(start // _BLOCK):
            rng = Random(derive_seed(seed, "problems", block))
            members = (c for c in self.candidates(rng, "train") if self.split_of(c) == "train")
            yield from map(self.build, islice(members, skip, _BLOCK))
            skip = 0

    def test(self, size: int) -> Iterator[Problem]:
        """Yield the `size` distinct problems of the test set.

        Raises:
            ConfigError: the problem space has fewer test problems.
        """
        seen: set[Candidate] = set()
        fruitless = 0
        for candidate in self.candidates(Random(_TEST_SEED), "test"):
            if len(seen) == size:
                return
            if candidate in seen or self.split_of(candidate) != "test":
                fruitless += 1
                if fruitless > _FRUITLESS_DRAWS:
                    raise ConfigError(
                        f"task.test_problems is {size}, but problems of this size have only about "
                        f"{len(seen)} test problems; lower it or make the problems larger"
                    )
                continue
            fruitless = 0
            seen.add(candidate)
            yield self.build(candidate)
