"""The outcome at the last step, and no other label: an outcome reward model; samples nothing."""

from __future__ import annotations

import numpy as np


def label(outcomes: np.ndarray, step_rows: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Label the last steps [S]."""
    labels: np.ndarray = np.where(last, outcomes[step_rows], np.nan)
    return labels
