"""Values of the steps of a search tree, inferred from its right leaves (ReST-MCTS*, arXiv 2406.03816)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Path = tuple[Hashable, ...]


def tree_values(paths: Sequence[Sequence[Hashable]], right: Sequence[bool]) -> list[list[float]] | None:
    """Return the value of every step of each finished response of one problem, in [0, 1].

    Equal beginnings are one path of the tree. v_0 = 0 and v_k = max(0, v_{k-1} + (1 - v_{k-1}) r / m). A step
    from which a right answer was reached has r = 1, and m is the number of steps to the nearest one, itself
    counted; another has r = -1 and the m of the last step (or the problem) before it from which one was. So a
    right response rises in even steps to 1, unless a shorter one leaves its path. As in the authors' program
    (`MCTS/base.py`); in the paper m counts the steps that are left, one fewer.

    Args:
        paths: of each response its steps, at least one, in whatever tells them apart.
        right: whether its answer is right.

    Returns:
        None where no response is right: nothing can be inferred then.
    """
    if not any(right):
        return None
    distances: dict[Path, int] = {}
    for steps, is_right in zip(paths, right, strict=True):
        if is_right:
            for depth in range(len(steps) + 1):
                prefix = tuple(steps[:depth])
                distance = len(steps) - depth + 1
                distances[prefix] = min(distance, distances.get(prefix, distance))
    return [_along(steps, distances) for steps in paths]


def _along(steps: Sequence[Hashable], distances: dict[Path, int]) -> list[float]:
    """Values along one path; the root, of no steps, is in `distances`."""
    value, nearest = 0.0, distances[()]
    values = []
    for depth in range(1, len(steps) + 1):
        found = distances.get(tuple(steps[:depth]))
        nearest = nearest if found is None else found
        gain = (1.0 - value) / nearest
        value = max(0.0, value + (gain if found is not None else -gain))
        values.append(value)
    return values
