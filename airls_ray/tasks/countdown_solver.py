"""Exhaustive search for Countdown: which values some numbers reach, and by which steps.

Rules, as the public test files follow them: every number is used exactly once; results are
non-negative integers; the larger operand of - and / comes first; division is exact. One rule of ours:
no result exceeds `LARGEST_RESULT`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from random import Random

LARGEST_RESULT = 9999
"""Largest intermediate result."""


def combine(a: int, b: int) -> list[int]:
    """Return what two numbers give, in the order + * - / (without what the rules forbid)."""
    if a < b:
        a, b = b, a
    values = [value for value in (a + b, a * b) if value <= LARGEST_RESULT]
    values.append(a - b)
    if b and a % b == 0:
        values.append(a // b)
    return values


def combine_texts(a: int, b: int) -> list[tuple[int, str]]:
    """Return results and step texts like `combine`; + and * keep the order of the operands."""
    values = [(a + b, f"{a}+{b}={a + b}"), (a * b, f"{a}*{b}={a * b}")]
    values = [item for item in values if item[0] <= LARGEST_RESULT]
    if a < b:
        a, b = b, a
    values.append((a - b, f"{a}-{b}={a - b}"))
    if b and a % b == 0:
        values.append((a // b, f"{a}/{b}={a // b}"))
    return values


@lru_cache(maxsize=128)  # more than one call on six numbers needs; the sets are large
def reachable(pool: tuple[int, ...]) -> frozenset[int]:
    """Return every value that all of `pool` (sorted) together give.

    Dynamic programming over subsets: the last operation joins the values of two disjoint parts.
    """
    if len(pool) == 1:
        return frozenset(pool)
    if len(pool) == 2:
        return frozenset(combine(pool[0], pool[1]))
    found: set[int] = set()
    for some, others in _parts(pool):
        partners = reachable(others)
        for a in reachable(some):
            found.update(_joined(a, partners))
    return frozenset(found)


def _joined(a: int, partners: frozenset[int]) -> set[int]:
    """Return what `combine` gives for `a` and each of `partners` (written for speed)."""
    found = {abs(a - b) for b in partners}
    found.update([a + b for b in partners if a + b <= LARGEST_RESULT])
    if a == 0:
        found.add(0)
        return found
    largest = LARGEST_RESULT // a
    found.update([a * b for b in partners if b <= largest])
    found.update([b // a for b in partners if not b % a])
    found.update([a // b for b in partners if b and not a % b])
    return found


@lru_cache(maxsize=1 << 16)
def solvable(pool: tuple[int, ...], target: int) -> bool:
    """Whether all of `pool` (sorted) together give `target` (at least 1).

    Like `reachable`, but the last operation is solved for its second operand.
    """
    if len(pool) == 1:
        return pool[0] == target
    if target > LARGEST_RESULT:
        return False
    if len(pool) == 2:
        return target in combine(pool[0], pool[1])
    for some, others in _parts(pool):
        partners = reachable(others)
        if any(_partner_exists(a, partners, target) for a in reachable(some)):
            return True
    return False


def _partner_exists(a: int, partners: frozenset[int], target: int) -> bool:
    """Whether `target` is a + b, |a - b|, a * b, a / b or b / a for some b of `partners`."""
    if target - a in partners or a - target in partners or a + target in partners:
        return True
    if a == 0:
        return False
    if a % target == 0 and a // target in partners:
        return True
    return a * target in partners or (target % a == 0 and target // a in partners)


def solutions(numbers: tuple[int, ...], target: int) -> Iterator[tuple[str, ...]]:
    """Yield the step texts of every solution, depth first.

    Pairs in the order of the numbers, a result goes to the end of the list, operations in the order
    + * - /: the first solution is the one of the public files (all 2,000 agree; the order is that of
    Stream of Search, arXiv 2404.03683).
    """
    for i, j in _pairs(len(numbers)):
        rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
        for value, text in combine_texts(numbers[i], numbers[j]):
            if not rest:
                if value == target:
                    yield (text,)
            elif solvable(tuple(sorted((*rest, value))), target):
                for steps in solutions((*rest, value), target):
                    yield (text, *steps)


def random_steps(numbers: tuple[int, ...], largest: int, rng: Random) -> list[str]:
    """Return the texts of right steps drawn at random, until one number is left.

    No sum or product exceeds `largest`.
    """
    steps = []
    while len(numbers) > 1:
        i, j = rng.choice(_pairs(len(numbers)))
        found = combine_texts(numbers[i], numbers[j])
        limit = max(largest, numbers[i], numbers[j])  # differences and quotients always fit
        value, text = rng.choice([item for item in found if item[0] <= limit])
        numbers = (*numbers[:i], *numbers[i + 1 : j], *numbers[j + 1 :], value)
        steps.append(text)
    return steps


@lru_cache(maxsize=16)
def _pairs(size: int) -> tuple[tuple[int, int], ...]:
    return tuple(combinations(range(size), 2))


def _parts(pool: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield each way to part `pool` in two, the smaller part first."""
    for some, others in _part_indices(len(pool)):
        yield tuple(pool[i] for i in some), tuple(pool[i] for i in others)


@lru_cache(maxsize=16)
def _part_indices(size: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    parts = []
    for count in range(1, size // 2 + 1):
        for some in combinations(range(size), count):
            others = tuple(i for i in range(size) if i not in some)
            if 2 * count < size or some < others:  # halves of equal size come up twice
                parts.append((some, others))
    return parts
