"""Takes the majority answer of a problem's rollouts for the right one (TTRL, arXiv 2504.16084)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.voting import vote


def outcomes(answers: Sequence[str | None], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 where a rollout gives the answer that most of its group give, else 0: float64 [N].

    TTRL (arXiv 2504.16084, sec. 2; `ttrl_utils.py`, `_majority_vote`). Of answers with equal votes the first
    seen wins. A rollout without an answer has no vote; a group without any answer gets 0.

    Args:
        answers: [N], canonical.
        groups: int64 [N], problem of each rollout.
    """
    result = np.zeros(len(answers))
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        given = [answers[row] for row in rows]
        winner = vote(given)
        if winner is not None:
            result[rows] = [answer == given[winner] for answer in given]
    return result
