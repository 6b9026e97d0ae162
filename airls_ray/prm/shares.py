"""The rollouts and traces of an iteration in shares: an update of the PRM can learn from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.prm.batch import PRMSource


def problem_shares(sources: Sequence[PRMSource], shares: int) -> list[list[PRMSource]]:
    """Cut the problems of all sources into `shares` parts of consecutive problems; empty ones are left out.

    A problem's rollouts and traces, of every source, are in one share, so that classes can be paired within
    it and objectives that compare the rollouts of a problem see all of them. With one share these are the
    sources as they are.
    """
    if shares == 1:
        return [list(sources)]
    names = [table["problem_id"] for one in sources for table in (one.rollouts, one.traces)]
    order = pa.chunked_array([chunk for name in names for chunk in name.chunks], pa.string()).unique()
    number = {name: at for at, name in enumerate(order.to_pylist())}
    found = []
    for share in range(shares):
        wanted = {name for name, at in number.items() if at * shares // len(number) == share}
        if wanted:
            found.append([_of_problems(one, wanted) for one in sources])
    return found


def _of_problems(source: PRMSource, names: set[str]) -> PRMSource:
    """The part of a source that is of these problems."""
    traces = _rows_of(source.traces, names)
    index = pa.array(traces.numpy())
    part = source.of_rows(_rows_of(source.rollouts, names))
    return replace(part, traces=source.traces.take(index), trace_logprobs=source.trace_logprobs.take(index))


def _rows_of(table: pa.Table, names: set[str]) -> Tensor:
    """int64: the rows of `table` that are of these problems."""
    ids = table["problem_id"].to_pylist()
    return torch.tensor([row for row, name in enumerate(ids) if name in names], dtype=torch.int64)
