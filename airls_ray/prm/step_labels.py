"""Labels of steps from the outcomes of completions (Math-Shepherd, arXiv 2312.08935).

A step t < T of a rollout is as good as the completions of the prefix that ends with it: hard, 1 if any of
them is correct; soft, the share that is. The last step is labelled with the rollout's own outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa

from airls_ray.data.schemas import PREFIXES, PRM_LABELS, rows_to_table
from airls_ray.text.codec import TextCodec

LabelKind = Literal["outcome", "math_shepherd_hard", "math_shepherd_soft"]
_CORRECT = 0.5


@dataclass(frozen=True)
class DistinctPrefixes:
    """The prefixes that rollouts need completions of, equal ones of a problem once."""

    table: pa.Table
    """Schema PREFIXES: the distinct ones, in the order in which they first occur."""
    numbers: list[list[int]]
    """For each rollout, the row in `table` of the prefix that ends with each step but the last."""

    @property
    def all(self) -> int:
        """How many there are with equal ones counted each."""
        return sum(len(row) for row in self.numbers)


def distinct_prefixes(rollouts: pa.Table) -> DistinctPrefixes:
    """Collect the prefixes of `rollouts` (ROLLOUTS) that end with a step before the last one."""
    found: dict[tuple[str, bytes], int] = {}
    rows: list[tuple[str, list[int], list[int]]] = []
    numbers: list[list[int]] = []
    columns = ("problem_id", "prompt", "response", "step_ends")
    for problem_id, prompt, response, ends in zip(*(rollouts[n].to_pylist() for n in columns), strict=True):
        tokens, row = np.asarray(response, dtype=np.int32), []
        for end in ends[:-1]:
            key = problem_id, tokens[:end].tobytes()
            if key not in found:
                found[key] = len(rows)
                rows.append((problem_id, prompt, response[:end]))
            row.append(found[key])
        numbers.append(row)
    return DistinctPrefixes(rows_to_table(rows, PREFIXES), numbers)


def prefix_values(
    prefixes: int, completion_of: np.ndarray, outcomes: np.ndarray, kind: LabelKind
) -> np.ndarray:
    """Reduce the outcomes of completions to the values of their prefixes.

    Args:
        prefixes: how many there are.
        completion_of: int64 [completions], prefix of each completion.
        outcomes: [completions], in [0, 1]; above 1/2 is correct.
        kind: `math_shepherd_hard` or `math_shepherd_soft`.

    Returns:
        float64 [prefixes]; 0 where a prefix has no completion, since it already fills the response and a
        truncated response is wrong.
    """
    count = np.bincount(completion_of, minlength=prefixes)
    correct = np.bincount(completion_of, outcomes > _CORRECT, minlength=prefixes)
    if kind == "math_shepherd_hard":
        return np.asarray(correct > 0, dtype=np.float64)
    return np.asarray(correct / np.maximum(count, 1))


def label_steps(
    step_counts: Sequence[int],
    outcomes: Sequence[float],
    numbers: Sequence[Sequence[int]] | None,
    values: np.ndarray | None,
) -> pa.ListArray:
    """Return the labels of all steps, list<float32> [rollouts], null where a step has none.

    Args:
        step_counts: [rollouts].
        outcomes: [rollouts], in [0, 1]: the labels of the last steps.
        numbers: `DistinctPrefixes.numbers`; None labels the last steps only.
        values: [prefixes], of `prefix_values`.
    """
    labels: list[list[float | None]] = []
    for row, (count, outcome) in enumerate(zip(step_counts, outcomes, strict=True)):
        before: list[float | None] = [None] * (count - 1)
        if numbers is not None and values is not None:
            before = [float(values[number]) for number in numbers[row]]
        labels.append([*before, float(outcome)] if count else [])
    return pa.array(labels, pa.list_(pa.float32()))


def outcome_labels(rollouts: pa.Table, codec: TextCodec) -> pa.Table:
    """Return STORED_ROLLOUTS as PRM_LABELS: the outcome at the last step, as an ORM has it."""
    responses, ends = (rollouts[name].to_pylist() for name in ("response", "step_ends"))
    columns = {
        "labels": label_steps([len(row) for row in ends], rollouts["outcome"].to_pylist(), None, None),
        "step_truth": pa.nulls(rollouts.num_rows, PRM_LABELS.field("step_truth").type),
        "prompt_text": pa.array([codec.decode(prompt) for prompt in rollouts["prompt"].to_pylist()]),
        "step_texts": pa.array(
            [codec.step_texts(*row) for row in zip(responses, ends, strict=True)], pa.list_(pa.string())
        ),
    }
    return pa.table(
        {name: columns[name] if name in columns else rollouts[name] for name in PRM_LABELS.names},
        schema=PRM_LABELS,
    )


def chunks(count: int, size: int) -> list[range]:
    """Cut 0..count-1 into ranges of `size`; the last one may be shorter."""
    return [range(a, b) for a, b in pairwise([*range(0, count, size), count])]
