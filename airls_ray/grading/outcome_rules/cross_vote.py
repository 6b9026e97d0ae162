"""Takes the majority answer to a question's other wording for the right one (Co-Reward, arXiv 2508.00410)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.voting import vote


def outcomes(
    answers: Sequence[str | None],
    problem_ids: Sequence[str],
    details: Sequence[Mapping[str, Any]],
    field: str = "pair",
) -> NDArray[np.float64]:
    """Return 1 where a rollout gives the answer that most rollouts of the paired problem give, else 0: [N].

    Co-Reward (arXiv 2508.00410; `co_reward.py` of the authors' program): the rollouts of the original label
    those of the rephrased question, and the reverse. Of equal votes the first seen wins. A problem whose pair
    is not in the iteration, or has no answer, gets 0 and teaches nothing; the sampler `pairs` keeps both
    together.

    Args:
        answers: [N], canonical.
        problem_ids: [N], problem of each rollout.
        details: [N], of these problems.
        field: name of the detail that both wordings share (of more than two, the others vote together).
    """
    rows: dict[str, list[int]] = {}
    for row, known in enumerate(details):
        if known.get(field) is not None:
            rows.setdefault(str(known[field]), []).append(row)
    result = np.zeros(len(answers))
    for both in rows.values():
        for problem in {problem_ids[row] for row in both}:
            others = [answers[row] for row in both if problem_ids[row] != problem]
            winner = vote(others)
            if winner is not None:
                own = [row for row in both if problem_ids[row] == problem]
                result[own] = [answers[row] == others[winner] for row in own]
    return result
