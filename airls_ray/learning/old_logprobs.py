"""Log-probabilities of an iteration's rollouts before its updates, the trainer's beside the sampler's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from airls_ray.learning.engine import TrainEngine, share_rows
from airls_ray.learning.rollout_batches import RolloutBatch
from airls_ray.objectives.policy_loss import near_rollouts
from airls_ray.tensors import PackedColumn


class OldLogprobs:
    """What the trainer thought of micro-batches before anything changed, and how far the sampler was off.

    Args of the constructor:
        engine: this rank's engine, its module a `PolicyModule`.
        sampler: log-probabilities of all response tokens by the engine that sampled.
        temperature: the sampler's.
    """

    def __init__(self, engine: TrainEngine, sampler: PackedColumn, temperature: float) -> None:
        self.sampler = sampler
        self._engine = engine
        self._temperature = temperature
        self._of: dict[RolloutBatch, Tensor] = {}
        self.difference_sum = 0.0
        self.difference_max = 0.0

    def get(self, batch: RolloutBatch) -> Tensor | None:
        """Those of a micro-batch's tokens [R], or None where it has not been passed."""
        return self._of.get(batch)

    def keep(self, batch: RolloutBatch, logprobs: Tensor, *, is_old: bool = True) -> None:
        """Compare the trainer's log-probabilities [R] with the sampler's; either's are the old ones."""
        sampler = batch.take(self.sampler)
        if logprobs.numel():
            difference = (logprobs - sampler).abs()
            self.difference_sum += float(difference.sum())
            self.difference_max = max(self.difference_max, float(difference.max()))
        self._of[batch] = logprobs if is_old else sampler

    def compute(self, work: Sequence[Sequence[RolloutBatch]]) -> None:
        """Pass these micro-batches, before anything has changed; collective."""
        with torch.no_grad():
            for batch in (batch for batches in work for batch in batches):
                logprobs, _ = self._engine.forward(
                    batch.distinct.model_inputs(), temperature=self._temperature
                )
                self.keep(batch, batch.expand(logprobs))

    def near_rows(self, work: Sequence[Sequence[RolloutBatch]], limit: float) -> Tensor:
        """Rows of computed micro-batches that the sequence mask keeps, known to every rank: bool [rows]."""
        rows = self.sampler.rows
        kept = torch.zeros(rows)
        for batch in (batch for batches in work for batch in batches):
            difference = self._of[batch] - batch.take(self.sampler)
            near = near_rollouts(difference, batch.row_offsets, limit).cpu()
            starts = batch.row_offsets[:-1].cpu()
            some = batch.row_offsets.diff().cpu() > 0
            kept[batch.rows[some]] = near[starts[some]].float()
        return share_rows(self._engine, kept, torch.arange(rows)) > 0.5
