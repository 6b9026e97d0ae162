"""1 if any of a step's completions is correct; the outcome at the last step (arXiv 2312.08935)."""

from __future__ import annotations

import numpy as np


def label(values: np.ndarray, correct: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Label all steps [S] by hard estimation: y_t = 1 if some a_k = a*, else 0."""
    labels: np.ndarray = np.where(last, values, correct > 0)
    return labels
