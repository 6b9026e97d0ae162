"""1 before the first wrong step, 0 at it, none behind; binary search finds it (OmegaPRM, arXiv 2406.06592).

It completes log2 T prefixes of a wrong solution of T steps, where other rules complete all.
"""

from __future__ import annotations

import numpy as np


def label(
    first_errors: np.ndarray,
    step_rows: np.ndarray,
    positions: np.ndarray,
    values: np.ndarray,
    completions: np.ndarray,
    last: np.ndarray,
    soft: bool = False,
) -> np.ndarray:
    """Label steps [S] up to the first wrong one of their rollout; none of a problem that nothing solves.

    Args:
        first_errors: int64 [N].
        step_rows: int64 [S].
        positions: int64 [S].
        values: float64 [S].
        completions: int64 [S], 0 where the search did not go.
        last: bool [S].
        soft: label by the share of correct completions (section 3.4) where there are some, and no other step.
    """
    first = first_errors[step_rows]
    known = (positions <= first) & ((completions > 0) | last) if soft else positions <= first
    labels: np.ndarray = np.where(known, values if soft else positions < first, np.nan)
    return labels
