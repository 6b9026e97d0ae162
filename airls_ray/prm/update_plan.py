"""Which rows are learned from in each update of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.objectives.step_loss_kind import takes_solutions


def plan_updates(rows: Tensor, rollouts_per_update: int, seed: int) -> list[Tensor]:
    """Return the rows (int64) of each update of an epoch, shuffled; their numbers differ by one at most."""
    order = torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(seed))
    updates = max(round(rows.numel() / rollouts_per_update), 1)
    return list(rows[order].tensor_split(updates))


def plan_problem_updates(
    problem_ids: Sequence[str], learn: list[str], rollouts_per_update: int, seed: int
) -> list[Tensor]:
    """Return the rows (int64) of each update of an epoch: whole problems, shuffled by `seed`.

    Args:
        problem_ids: of every row.
        learn: the problems to take rows of.
        rollouts_per_update: wanted rows of an update; the updates hold equal numbers of problems, give or
            take one.
        seed: of the order.
    """
    rows: dict[str, list[int]] = {name: [] for name in learn}
    for row, name in enumerate(problem_ids):
        if name in rows:
            rows[name].append(row)
    order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(seed))
    count = sum(map(len, rows.values()))
    updates = min(max(round(count / rollouts_per_update), 1), len(learn))
    return [
        torch.tensor([row for problem in part.tolist() for row in rows[learn[problem]]])
        for part in order.tensor_split(updates)
    ]


def plan_label_updates(
    rows: Tensor, problem_ids: Sequence[str], step_loss: StepLossConfig, rollouts_per_update: int, seed: int
) -> list[Tensor]:
    """Return the labelled rows (int64) of each update; whole problems for a loss that compares solutions.

    Args:
        rows: int64, those with a label.
        problem_ids: of every row.
        step_loss: the loss.
        rollouts_per_update: wanted rows of an update.
        seed: of the order.
    """
    if not takes_solutions(step_loss.open()):
        return plan_updates(rows, rollouts_per_update, seed)
    ids = [problem_ids[row] for row in rows.tolist()]
    plan = plan_problem_updates(ids, sorted(set(ids)), rollouts_per_update, seed)
    return [rows[part] for part in plan]
