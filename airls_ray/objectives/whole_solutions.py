"""Whole solutions of a micro-batch of labelled steps: for losses that compare their sums with outcomes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from airls_ray.tensors.segments import segment_sum


class WholeSolutions(NamedTuple):
    """R solutions, by their row within the micro-batch."""

    sums: Tensor
    """[R], with gradient: sum of the logits of all steps of a solution."""
    labels: Tensor
    """[R]: mean over its labelled steps, as the outcome is at the last one; 0 where it has none."""
    labelled: Tensor
    """bool [R]: whether it has a labelled step."""


def whole_solutions(logits: Tensor, labels: Tensor, weights: Tensor, step_rows: Tensor) -> WholeSolutions:
    """Add the steps of each solution up.

    Args:
        logits: [S].
        labels: [S].
        weights: [S], 0 for a step without a label.
        step_rows: int64 [S].
    """
    rows = int(step_rows.max()) + 1 if step_rows.numel() else 0
    count = segment_sum(weights, step_rows, rows)
    label = segment_sum(weights * labels, step_rows, rows) / count.clamp(min=1.0)
    return WholeSolutions(segment_sum(logits, step_rows, rows), label, count > 0)
