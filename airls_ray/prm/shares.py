"""The rollouts and traces of an iteration in shares: an update of the PRM can learn from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.prm.batch import PRMSource


def problem_shares(sources: Sequence[PRMSource], shares: int) -> list[list[PRMSource]]:
    """Cut the problems of each source into `shares` parts of consecutive problems; empty ones are left out.

    A problem's rollouts and traces, of every source, are in one share, so that classes can be paired within
    it and objectives that compare the rollouts of a problem see all of them: one that a source shares with an
    earlier one is where that has it. With one share these are the sources as they are.
    """
    if shares == 1:
        return [list(sources)]
    share_of: dict[str, int] = {}
    for one in sources:
        new = [name for name in _problems(one) if name not in share_of]
        share_of |= {name: at * shares // len(new) for at, name in enumerate(new)}
    found = []
    for share in range(shares):
        wanted = {name for name, at in share_of.items() if at == share}
        if wanted:
            found.append([_of_problems(one, wanted) for one in sources])
    return found


def _problems(source: PRMSource) -> list[str]:
    """Its problems, in their order, each once."""
    chunks = [chunk for table in (source.rollouts, source.traces) for chunk in table["problem_id"].chunks]
    names: list[str] = pa.chunked_array(chunks, pa.string()).unique().to_pylist()
    return names


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
