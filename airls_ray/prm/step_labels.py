"""Labels of steps by a rule (`supervised_prm.labels`), from outcomes and the completions of prefixes.

A step t < T of a rollout is known by the completions of the prefix that ends with it, the last step by the
rollout's own outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.data.schemas import PREFIXES, PRM_LABELS, rows_to_table
from airls_ray.errors import DoorError
from airls_ray.own_code import call_own, shown
from airls_ray.text.codec import TextCodec

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


@dataclass(frozen=True)
class Completions:
    """How completions of P distinct prefixes ended."""

    made: np.ndarray
    """int64 [P]; 0 where a prefix already fills the response."""
    correct: np.ndarray
    """int64 [P]."""

    @classmethod
    def count(cls, prefixes: int, completion_of: np.ndarray, outcomes: np.ndarray) -> Completions:
        """Count them.

        Args:
            prefixes: P.
            completion_of: int64 [completions], prefix of each completion.
            outcomes: [completions], in [0, 1]; above 1/2 is correct.
        """
        made = np.bincount(completion_of, minlength=prefixes)
        return cls(made, np.bincount(completion_of[outcomes > _CORRECT], minlength=prefixes))


Completed = tuple[DistinctPrefixes, Completions]


def known_to(
    rollouts: pa.Table, completed: Completed | None, first_errors: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what a label rule may take of N rollouts with S steps (`airls_ray.prm.label_rule`).

    Args:
        rollouts: `problem_id`, `step_ends` and `outcome` of ROLLOUTS.
        completed: the prefixes of `rollouts` and how their completions ended; None: none were sampled.
        first_errors: int64 [N], of `find_first_errors`; None: nothing was searched.
    """
    counts = pc.list_value_length(rollouts["step_ends"]).to_numpy().astype(np.int64)
    outcomes = rollouts["outcome"].to_numpy().astype(np.float64)
    _, groups = np.unique(rollouts["problem_id"].to_pylist(), return_inverse=True)
    step_rows = np.repeat(np.arange(len(counts)), counts)
    positions = np.arange(len(step_rows)) - (np.cumsum(counts) - counts)[step_rows]
    last = positions == counts[step_rows] - 1
    known = {
        "outcomes": outcomes,
        "groups": groups,
        "step_rows": step_rows,
        "positions": positions,
        "last": last,
        **({} if first_errors is None else {"first_errors": first_errors}),
    }
    if completed is None:
        return known
    prefixes, found = completed
    numbers = np.fromiter(chain.from_iterable(prefixes.numbers), np.int64)
    made, correct = np.zeros(len(last), np.int64), np.zeros(len(last), np.int64)
    made[~last], correct[~last] = found.made[numbers], found.correct[numbers]
    values = np.where(last, outcomes[step_rows], correct / np.maximum(made, 1))
    return {**known, "values": values, "completions": made, "correct": correct}


def label_steps(named: LabelRuleConfig, known: Mapping[str, np.ndarray]) -> pa.ListArray:
    """Return the labels of all steps, list<float32> [N], null where a step has none.

    Args:
        named: the rule.
        known: of `known_to`; the user's own rule gets copies.

    Raises:
        DoorError: the rule raised, or did not return a number from 0 to 1, or nan, for each step.
    """
    steps, rollouts = len(known["step_rows"]), len(known["outcomes"])
    given = {name: values.copy() for name, values in known.items()}
    labels = call_own(named.door(), named.where, named.open(), given)
    whose = f"{named.where}: {named.name} returned"
    wanted = f"an array of {steps} numbers, one for each of the steps"
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "biuf":
        what = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else shown(labels)
        raise DoorError(f"{whose} {what}, and it must be {wanted}")
    if labels.shape != (steps,):
        raise DoorError(f"{whose} an array of shape {list(labels.shape)}, and it must be {wanted}")
    labels = labels.astype(np.float32)
    wrong = ~np.isnan(labels) & ~((labels >= 0) & (labels <= 1))
    if wrong.any():
        at = int(wrong.argmax())
        raise DoorError(
            f"{whose} {labels[at]:g} for number {at} of the steps, and a label must lie from 0 to 1 (nan: "
            "none)"
        )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(known["step_rows"], minlength=rollouts))])
    values = pa.array(labels, pa.float32(), from_pandas=True)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=pa.list_(pa.float32()))


def label_stored(rollouts: pa.Table, codec: TextCodec, named: LabelRuleConfig) -> pa.Table:
    """Return STORED_ROLLOUTS as PRM_LABELS by a rule that needs no completions, as `outcome`.

    Raises:
        DoorError: see `label_steps`.
    """
    responses, ends = (rollouts[name].to_pylist() for name in ("response", "step_ends"))
    columns = {
        "labels": label_steps(named, known_to(rollouts, None)),
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


def rule_record(named: LabelRuleConfig) -> Any:
    """Return what tells the labels of one rule from another's: the name where that is all there is."""
    door = named.door()
    if door.source == "built-in" and not named.options:
        return named.name
    record = {"name": named.name.rpartition(":")[2], "options": named.options}
    return record if door.source == "built-in" else {**record, "version": door.version}


def chunks(count: int, size: int) -> list[range]:
    """Cut 0..count-1 into ranges of `size`; the last one may be shorter."""
    return [range(a, b) for a, b in pairwise([*range(0, count, size), count])]
