"""Epochs of a PRM's training on a fixed set of rollouts, whatever it learns by.

One rank's view; every rank runs the same epochs on the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
from torch import Tensor

from airls_ray.config.schema import Config
from airls_ray.errors import DataError
from airls_ray.learning.engine import TrainEngine
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.supervised import (
    check_form,
    measure_labels,
    update_on_labels,
)
from airls_ray.prm.update_plan import plan_label_updates
from airls_ray.seeding import derive_seed

Line = dict[str, Any]


class PRMTraining(Protocol):
    """A way to learn from a fixed set of rollouts."""

    def plan(self, epoch: int) -> list[Tensor]:
        """The rows (int64) of each update of an epoch (from 1), as many updates in every epoch."""
        ...

    def update(self, rows: Tensor) -> dict[str, float]:
        """One optimiser update; collective. Names begin with `train_prm/`."""
        ...

    def measure(self) -> dict[str, float]:
        """Figures on held-out problems; collective. Names begin with `prm/`; empty if none are held out."""
        ...


def run_epochs(training: PRMTraining, epochs: int) -> Iterator[tuple[Line, bool]]:
    """Train, and yield a line for the start (update 0) and one for every update.

    The second value says whether the line closes an epoch; such a line has the held-out figures.
    """
    yield {"update": 0, "epoch": 0, **training.measure()}, False
    update = 0
    for epoch in range(1, epochs + 1):
        updates = training.plan(epoch)
        for number, rows in enumerate(updates, 1):
            update += 1
            line: Line = {"update": update, "epoch": epoch, **training.update(rows)}
            closes = number == len(updates)
            yield (line | training.measure() if closes else line), closes


class LabelTraining:
    """A loss against labels of steps: `supervised_prm.step_loss`."""

    def __init__(
        self, engine: TrainEngine, config: Config, learn: pa.Table, held_out: pa.Table, pad_id: int
    ) -> None:
        """`learn` and `held_out`: PRM_LABELS of different problems.

        Raises:
            DataError: no row of `learn` has a label.
            ConfigError: see `check_form`.
        """
        self._engine, self._config, self._pad_id = engine, config, pad_id
        self._batch = LabelledSequences.of(learn)
        self._held_out = held_out
        check_form(config.prm, logprobs=self._batch.logprobs is not None)
        self._step_loss = config.supervised_prm.step_loss
        self._rows = labelled_rows(self._batch)
        self._ids: list[str] = learn["problem_id"].to_pylist()

    def plan(self, epoch: int) -> list[Tensor]:
        """Labelled rollouts in an order of the epoch's own."""
        seed = derive_seed(self._config.seed, "train_prm epoch", epoch)
        size = self._config.supervised_prm.rollouts_per_update
        return plan_label_updates(self._rows, self._ids, self._step_loss, size, seed)

    def update(self, rows: Tensor) -> dict[str, float]:
        """See `update_on_labels`."""
        return update_on_labels(
            self._engine,
            self._batch,
            rows,
            self._config.prm,
            pad_id=self._pad_id,
            step_loss=self._step_loss,
            temperature=self._config.rollout.temperature,
            text_weight=self._config.supervised_prm.text_loss,
        )

    def measure(self) -> dict[str, float]:
        """See `measure_labels`."""
        if not self._held_out.num_rows:
            return {}
        return measure_labels(
            self._engine,
            self._held_out,
            self._config.prm,
            pad_id=self._pad_id,
            step_loss=self._step_loss,
            temperature=self._config.rollout.temperature,
        )


def labelled_rows(batch: LabelledSequences) -> Tensor:
    """The rows with a label (int64), at least one.

    Raises:
        DataError: there is none.
    """
    rows = batch.rows_with_labels
    if not rows.numel():
        raise DataError("no rollout outside the held-out problems has a label, so there is nothing to learn")
    return rows
