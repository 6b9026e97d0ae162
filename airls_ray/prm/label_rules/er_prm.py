"""The entropy-regularised value of a step's completions; the outcome at the last step (arXiv 2412.11006).

(1 / eta) ln E exp(eta r) with r = 1 for a correct completion. For eta near 0 it is their share, for a large
one the best of them, for a negative one it leans to the worst (the paper's form for samples of the optimal
policy).
"""

from __future__ import annotations

import numpy as np

from airls_ray.errors import DoorError

_MOST = 100.0


def label(values: np.ndarray, last: np.ndarray, eta: float = 1.0) -> np.ndarray:
    """Label all steps [S] by (1 / eta) ln((1 - p) + p e^eta), p the share of correct completions: in [0, 1].

    Args:
        values: float64 [S].
        last: bool [S].
        eta: 1 as in their program (`MCTS/calculate_score.py`).

    Raises:
        DoorError: eta is 0, or beyond +-100.
    """
    if not 0.0 < abs(eta) <= _MOST:
        raise DoorError(
            f"supervised_prm.labels: er_prm takes an eta from -{_MOST:g} to {_MOST:g} other than 0, but it "
            f"is {eta:g}: give another, or take math_shepherd_soft, which it is near 0"
        )
    # With a negative eta the wrong ones count: ln((1 - p) + p e^eta) = eta + ln(p + (1 - p) e^-eta).
    size, share = abs(eta), values if eta > 0 else 1.0 - values
    soft = np.where(share < 1.0, np.minimum(np.log1p(share * np.expm1(size)) / size, 1.0), 1.0)
    labels: np.ndarray = np.where(last, values, soft if eta > 0 else 1.0 - soft)
    return labels
