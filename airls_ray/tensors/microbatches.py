"""Which rows are computed together: micro-batches by token budget, balanced over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from airls_ray.tensors.batch import Layout


def plan_microbatches(
    lengths: Tensor, ranks: int, tokens_per_microbatch: int, layout: Layout
) -> list[list[Tensor]]:
    """Distribute rows over ranks and cut each rank's share into micro-batches.

    Rows are sorted by length, longest first (so that too large a budget fails in the first pass),
    and dealt to the ranks in serpentine order: the tokens of two ranks differ by at most one
    longest row, and micro-batch m has a similar size on every rank.

    Args:
        lengths: int64 [rows], tokens of prompt and response.
        ranks: data-parallel processes.
        tokens_per_microbatch: most tokens of a micro-batch, padding counted in layout `padded`;
            only a row that is longer by itself exceeds it, alone.
        layout: how the rows will be laid out.

    Returns:
        `plan[rank][m]` = int64 [B] rows of that micro-batch. Every row occurs once. Every rank has
        the same number of micro-batches (collectives must match); the surplus ones are empty.

    Raises:
        ValueError: ranks or tokens_per_microbatch is below 1.
    """
    if ranks < 1 or tokens_per_microbatch < 1:
        raise ValueError(
            f"ranks and tokens_per_microbatch must be at least 1, but are {ranks} and {tokens_per_microbatch}"
        )
    order = torch.sort(lengths, descending=True, stable=True).indices
    turn = torch.arange(order.numel())
    place = turn % ranks
    dealt_to = torch.where((turn // ranks) % 2 == 0, place, ranks - 1 - place)
    plan = [_cut(order[dealt_to == rank], lengths, tokens_per_microbatch, layout) for rank in range(ranks)]
    most = max(len(share) for share in plan)
    return [share + [order[:0]] * (most - len(share)) for share in plan]


def _cut(rows: Tensor, lengths: Tensor, budget: int, layout: Layout) -> list[Tensor]:
    """Cut `rows` (longest first) greedily; the loop is over micro-batches, not over rows."""
    sizes = lengths[rows]
    ends = sizes.cumsum(0)
    parts, start = [], 0
    while start < rows.numel():
        if layout == "padded":
            count = budget // max(int(sizes[start]), 1)
        else:
            before = int(ends[start] - sizes[start])
            count = int(torch.searchsorted(ends, before + budget, right=True)) - start
        stop = start + max(count, 1)
        parts.append(rows[start:stop])
        start = min(stop, rows.numel())
    return parts
