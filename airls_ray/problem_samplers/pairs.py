"""Problems in pairs: both wordings of a question in the same iteration, as `cross_vote` needs them.

Co-Reward (arXiv 2508.00410) samples each question and its rephrasing side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.data.problem_sampler import Candidate
from airls_ray.errors import DoorError


def choose(candidates: Sequence[Candidate], count: int, field: str = "pair") -> list[int]:
    """Return indices of up to `count` candidates, two by two, in the order in which pairs become complete.

    Args:
        candidates: those without a partner among them are passed over, so the window should be as large as
            the file.
        count: an even number.
        field: name of the detail that both share.

    Raises:
        DoorError: the number is odd.
    """
    if count % 2:
        raise DoorError(
            f"pairs takes two problems at a time, and {count} are asked for: make it an even number"
        )
    waiting: dict[str, int] = {}
    chosen: list[int] = []
    for at, one in enumerate(candidates):
        pair = one.details.get(field)
        if pair is None or len(chosen) == count:
            continue
        first = waiting.pop(str(pair), None)
        if first is None:
            waiting[str(pair)] = at
        else:
            chosen += [first, at]
    return chosen


SAMPLER = choose
