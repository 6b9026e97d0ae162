"""Sums and agreeing steps of all solutions of an update, for step losses that compare or count them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from airls_ray.learning.engine import TrainEngine, share_rows
from airls_ray.objectives.step_loss import Solutions, StepLossInputs
from airls_ray.objectives.whole_solutions import last_steps
from airls_ray.tensors import PackedColumn, TokenBatch
from airls_ray.tensors.segments import segment_sum


class UpdateSolutions:
    """All labelled solutions of an update, and where those of a micro-batch stand among them."""

    def __init__(
        self,
        engine: TrainEngine,
        labels: PackedColumn,
        problems: Tensor,
        rows: Tensor,
        parts: Sequence[TokenBatch],
        inputs_of: Callable[[TokenBatch], StepLossInputs],
    ) -> None:
        """Run all micro-batches without gradients; collective.

        Args:
            engine: this rank's.
            labels: of all rows; nan where a step has none.
            problems: int64, of all rows.
            rows: int64, those of the update, the same on every rank.
            parts: this rank's micro-batches of them.
            inputs_of: the steps of one, with their logits.
        """
        owner = torch.repeat_interleave(torch.arange(labels.rows), labels.lengths)
        used = ~labels.values.isnan()
        counts = segment_sum(used.double(), owner, labels.rows)
        means = segment_sum(labels.values.double().where(used, 0.0), owner, labels.rows) / counts.clamp(min=1)
        labelled = rows[counts[rows] > 0]
        sums, lasts, agreeing = torch.zeros(3, labels.rows, dtype=torch.float64)
        with torch.no_grad():
            for part in parts:
                given, rows_of_part = inputs_of(part), part.rows.cpu()
                of_part = segment_sum(given.logits.double(), given.step_rows, part.rows.numel())
                sums[rows_of_part] = of_part.cpu()
                lasts[rows_of_part] = last_steps(given.logits.double(), given.step_rows, len(of_part)).cpu()
                right = (means[rows_of_part] > 0.5).to(given.logits.device)[given.step_rows]
                agrees = (given.logits > 0).where(right, given.logits < 0)
                counted = segment_sum(agrees.double(), given.step_rows, part.rows.numel())
                agreeing[rows_of_part] = counted.cpu()
        self._places = torch.full((labels.rows,), -1)
        self._places[labelled] = torch.arange(labelled.numel())
        self._all = Solutions(
            sums=share_rows(engine, sums, rows)[labelled],
            labels=means[labelled],
            problems=problems[labelled],
            own=labelled[:0],
            lasts=share_rows(engine, lasts, rows)[labelled],
            agreeing=share_rows(engine, agreeing, rows)[labelled],
        )

    def of(self, part: TokenBatch) -> Solutions:
        """Return them for a micro-batch, on its device."""
        device = part.targets.device
        return Solutions(
            sums=self._all.sums.to(device),
            labels=self._all.labels.to(device),
            problems=self._all.problems.to(device),
            own=self._places[part.rows.cpu()].to(device),
            lasts=self._all.lasts.to(device),
            agreeing=self._all.agreeing.to(device),
        )
