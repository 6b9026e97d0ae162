"""Which of an iteration's rollouts are learned from."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from airls_ray.config.method_doors import FilterConfig
from airls_ray.credit.own import kept_rows
from airls_ray.tensors import to_packed


def rows_that_learn(
    rollouts: pa.Table, filters: Sequence[FilterConfig], scores: pa.Table | None = None
) -> Tensor:
    """Rows of the rollouts that all filters keep: int64, in the table's order.

    Args:
        rollouts: ROLLOUTS with outcomes.
        filters: of the method (`MethodConfig.filters`).
        scores: STEP_SCORES, joined by position; None where no PRM has scored the rollouts.

    Raises:
        DoorError: a filter of the user's own failed, or one needs step rewards and there are none.
    """
    rows = torch.arange(rollouts.num_rows)
    if not rows.numel() or not filters:
        return rows
    known = rollout_values(rollouts)
    known["outcomes"] = torch.from_numpy(rollouts["outcome"].to_numpy(zero_copy_only=False).copy())
    if scores is not None:
        rewards = to_packed(scores["rewards"])
        known["rewards"] = rewards.values
        known["step_rows"] = torch.repeat_interleave(torch.arange(rewards.rows), rewards.lengths)
    return rows[kept_rows(filters, known, rows.numel())]


def count_kept_groups(rollouts: pa.Table, filters: Sequence[FilterConfig]) -> int:
    """Return the number of groups of which the filters keep some rollout.

    Args:
        rollouts: ROLLOUTS with outcomes, of whole groups.
        filters: of the method.

    Raises:
        DoorError: a filter of the user's own failed.
    """
    return int(group_numbers(rollouts)[rows_that_learn(rollouts, filters)].unique().numel())


def rollout_values(rollouts: pa.Table) -> dict[str, Tensor]:
    """What a row filter or an outcome term may know of rollouts beside their outcomes, each [N]."""
    return {
        "groups": group_numbers(rollouts),
        "lengths": torch.from_numpy(pc.list_value_length(rollouts["response"]).to_numpy().copy()).long(),
        "truncated": torch.tensor(
            [one == "length" for one in rollouts["finish"].to_pylist()], dtype=torch.bool
        ),
    }


def group_numbers(rollouts: pa.Table) -> Tensor:
    """Number the groups of the table from 0: int64 [rows]."""
    values = torch.from_numpy(rollouts["group"].to_numpy(zero_copy_only=False).copy())
    return torch.unique(values, return_inverse=True)[1]
