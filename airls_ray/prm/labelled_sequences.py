"""Labelled rollouts as packed tensors: what every update on labels reads."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from airls_ray.learning.batches import Sequences
from airls_ray.objectives.step_loss import StepNormaliser
from airls_ray.tensors import PackedColumn, to_packed


@dataclass(frozen=True)
class LabelledSequences:
    """Labelled rollouts as packed tensors."""

    sequences: Sequences
    labels: PackedColumn
    """A value per step; nan where there is no label."""
    problems: Tensor
    """int64, a number of each row's problem."""
    right: Tensor
    """bool [N]: solutions whose outcome is above 1/2; without one, those without a label of 1/2 or less."""
    logprobs: PackedColumn | None = None
    """A value per response token, of the policy that sampled; None where a row has none."""

    @classmethod
    def of(cls, table: pa.Table) -> LabelledSequences:
        """Read a PRM_LABELS table."""
        column = table["labels"].combine_chunks()
        filled = pa.ListArray.from_arrays(
            pc.subtract(column.offsets, column.offsets[0]),
            pc.fill_null(pc.list_flatten(column), float("nan")),
        )
        numbers = table["problem_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        labels = to_packed(filled)
        return cls(
            Sequences.of(table),
            labels,
            torch.tensor(numbers, dtype=torch.int64),
            _right(table, labels),
            None if table["logprobs"].null_count else to_packed(table["logprobs"]),
        )

    @property
    def rows_with_labels(self) -> Tensor:
        """int64, the rows that have a label at all."""
        owner = torch.repeat_interleave(torch.arange(self.labels.rows), self.labels.lengths)
        return torch.unique(owner[~self.labels.values.isnan()])

    def normaliser(self, rows: Tensor) -> StepNormaliser:
        """What shares of a loss over all of `rows` are divided by."""
        taken = self.labels.take(rows)
        owner = torch.repeat_interleave(torch.arange(taken.rows), taken.lengths)
        labelled = owner[~taken.values.isnan()]
        return StepNormaliser(max(labelled.numel(), 1), max(labelled.unique().numel(), 1))


def _right(table: pa.Table, labels: PackedColumn) -> Tensor:
    """See `LabelledSequences.right`."""
    outcomes = torch.tensor(pc.fill_null(table["outcome"], float("nan")).to_numpy())
    owner = torch.repeat_interleave(torch.arange(labels.rows), labels.lengths)
    none_wrong = torch.bincount(owner[labels.values <= 0.5], minlength=labels.rows) == 0
    return torch.where(outcomes.isnan(), none_wrong, outcomes > 0.5)
