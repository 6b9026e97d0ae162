"""Whole solutions of a micro-batch of labelled steps: for losses that compare their sums with outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from airls_ray.tensors.segments import segment_sum

if TYPE_CHECKING:
    from airls_ray.objectives.step_loss import Solutions


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


def last_steps(values: Tensor, step_rows: Tensor, rows: int) -> Tensor:
    """Return of every solution the value of its last step [rows], with gradient; 0 for one without steps.

    Args:
        values: [S], solution by solution.
        step_rows: int64 [S], rising.
        rows: number of solutions.
    """
    if not step_rows.numel():
        return segment_sum(values, step_rows, rows)
    last = torch.cat([step_rows[1:] != step_rows[:-1], step_rows.new_ones(1, dtype=torch.bool)])
    return segment_sum(values.where(last, 0.0), step_rows, rows)


def pairs_of_problems(
    scores: Tensor, labelled: Tensor, others: Tensor, solutions: Solutions, beta: float = 1.0
) -> Tensor:
    """Return a micro-batch's share of the mean over pairs of -log sigmoid(beta (s_right - s_wrong)).

    Pairs are all of an update, of solutions of one problem with labels above 1/2 and not.

    Args:
        scores: [R], with gradient, of the micro-batch's solutions.
        labelled: bool [R], those that have a part.
        others: [U], the same scores of all solutions of the update, without gradient.
        solutions: all of the update.
        beta: scale.
    """
    mine, problems = solutions.own[: scores.numel()][labelled], solutions.problems
    right = solutions.labels > 0.5
    paired = (problems[mine][:, None] == problems) & (right[mine][:, None] != right)
    sizes = torch.bincount(problems)
    rights = torch.bincount(problems[right], minlength=sizes.numel())
    pairs = (rights * (sizes - rights)).sum().clamp(min=1)
    ahead = scores[labelled][:, None] - others.to(scores.dtype)
    losses = softplus(-beta * ahead.where(right[mine][:, None], -ahead)).where(paired, 0.0).sum() / pairs
    # A pair occurs twice, with the gradient of one solution each time: half its value, but all its gradient.
    return losses - losses.detach() / 2.0
