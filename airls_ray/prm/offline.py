"""A PRM from stored rollouts: mini-batches of whole problems, and selection on held-out problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from airls_ray.config.schema import Config
from airls_ray.data.rollout_files import StoredRollouts
from airls_ray.errors import DataError
from airls_ray.evaluation.rollouts import list_column
from airls_ray.evaluation.selection import measure_selection
from airls_ray.learning.engine import TrainEngine, share_rows
from airls_ray.prm.batch import PRMSource, build_prm_batch, split_sides, traits_of_learning
from airls_ray.prm.offline_method import OfflineMethod, fill_logprobs
from airls_ray.prm.scores import score_steps
from airls_ray.prm.supervised import split_by_problem
from airls_ray.prm.training import LabelTraining, PRMTraining
from airls_ray.prm.update import update_prm
from airls_ray.prm.update_plan import plan_label_updates, plan_problem_updates
from airls_ray.seeding import derive_seed


def problems_to_learn(rollouts: pa.Table, traces: pa.Table, method: OfflineMethod) -> list[str]:
    """The problems that give the objective something to learn: with pairing those with both classes.

    Raises:
        DataError: there is none.
    """
    if method.objective is None:
        raise ValueError("labels of outcomes teach without problems of two classes")
    traits = traits_of_learning(method.objective)
    sides = split_sides(rollouts["outcome"], method.prm, traits)
    policy, reference = (set(rollouts["problem_id"].take(side).to_pylist()) for side in sides)
    if traits.needs_traces:
        reference |= set(traces["problem_id"].to_pylist())
    paired = method.prm.pair_by_problem and traits.sides == "reference"
    learn = policy & reference if paired else policy | reference
    ours = [name for name in pc.unique(rollouts["problem_id"]).to_pylist() if name in learn]
    if not ours:
        raise DataError(
            "no problem outside the held-out ones has both a rollout of the policy's side and a correct "
            "solution of the other: give rollouts or traces that do, or set prm.pair_by_problem=false"
        )
    return ours


def updates_of_an_epoch(config: Config, method: OfflineMethod, learn: StoredRollouts) -> int:
    """How many updates an epoch has.

    Raises:
        DataError: no problem has something to learn from.
    """
    section, ids = config.supervised_prm, learn.rollouts["problem_id"].to_pylist()
    size = section.rollouts_per_update
    if method.objective is None:
        return len(plan_label_updates(torch.arange(len(ids)), ids, section.step_loss, size, 0))
    return len(plan_problem_updates(ids, problems_to_learn(learn.rollouts, learn.traces, method), size, 0))


def selection_seed(config: Config) -> int:
    """Of the intervals of held-out figures: the same for the PRM and for its controls."""
    return derive_seed(config.seed, "selection")


class SelectionFigures:
    """Figures of a PRM on the stored rollouts of held-out problems."""

    def __init__(self, engine: TrainEngine, config: Config, held_out: pa.Table, pad_id: int) -> None:
        """`held_out`: STORED_ROLLOUTS; `config.prm`: that of the method."""
        self._engine, self._config, self._pad_id = engine, config, pad_id
        self._held_out = held_out
        self._filled = fill_logprobs(held_out)

    def measure(self) -> dict[str, float]:
        """See `measure_selection`, under `prm/`; collective, the same on every rank, empty without rows."""
        if not self._held_out.num_rows:
            return {}
        how, seed = self._config.prm.search_aggregate, selection_seed(self._config)
        measured = measure_selection(
            self._held_out, self.step_scores(), how, seed, self._config.prm.score_kind
        )
        return {f"prm/{name}": value for name, value in measured.items()}

    def step_scores(self) -> NDArray[np.float64]:
        """[S]: search scores of the steps of all rows, those of other ranks included."""
        part = score_steps(
            self._engine,
            self._filled,
            None,
            self._config.prm,
            temperature=self._config.rollout.temperature,
            pad_id=self._pad_id,
        )
        _, offsets = list_column(self._filled["step_ends"])
        values, counts = list_column(part["scores"])
        mine = np.zeros(offsets[-1])
        first = np.repeat(offsets[:-1][part["row"].to_numpy()], np.diff(counts))
        mine[first + np.arange(len(values)) - np.repeat(counts[:-1], np.diff(counts))] = values
        scores = torch.from_numpy(mine)
        return share_rows(self._engine, scores, torch.arange(scores.numel())).numpy()


class AdversarialTraining:
    """Tell correct solutions from stored rollouts, mini-batch by mini-batch of whole problems."""

    def __init__(
        self, engine: TrainEngine, config: Config, method: OfflineMethod, learn: StoredRollouts, pad_id: int
    ) -> None:
        """`config.prm` is that of `method`; `learn`: without the held-out problems, its traces with
        log-probabilities where the method needs them.

        Raises:
            DataError: no problem has something to learn from.
        """
        self._engine, self._config, self._method, self._pad_id = engine, config, method, pad_id
        self._rollouts, self._traces = fill_logprobs(learn.rollouts), fill_logprobs(learn.traces)
        self._ids = learn.rollouts["problem_id"].to_pylist()
        self._problems = problems_to_learn(learn.rollouts, learn.traces, method)

    def plan(self, epoch: int) -> list[Tensor]:
        """Whole problems in an order of the epoch's own."""
        seed = derive_seed(self._config.seed, "train_prm epoch", epoch)
        size = self._config.supervised_prm.rollouts_per_update
        return plan_problem_updates(self._ids, self._problems, size, seed)

    def update(self, rows: Tensor) -> dict[str, float]:
        """One update by the objective; see `update_prm`, under `train_prm/`."""
        rollouts = self._rollouts.take(pa.array(rows.numpy()))
        names = pc.unique(rollouts["problem_id"])
        traces = self._traces.filter(pc.is_in(self._traces["problem_id"], names))
        source = PRMSource(rollouts, traces, traces.select(["logprobs"]))
        assert self._method.objective is not None
        metrics = update_prm(
            self._engine,
            [build_prm_batch([source], self._config.prm, self._method.objective)],
            self._config.prm,
            temperature=self._config.rollout.temperature,
            pad_id=self._pad_id,
        )
        return {f"train_prm/{name.removeprefix('prm/')}": value for name, value in metrics.items()}


class MeasuredTraining:
    """A training whose held-out figures are those of selection, beside its own (labels have some)."""

    def __init__(self, training: AdversarialTraining | LabelTraining, figures: SelectionFigures) -> None:
        self._training = training
        self._figures = figures
        self.plan, self.update = training.plan, training.update

    def measure(self) -> dict[str, float]:
        """Both, under `prm/`."""
        own = self._training.measure() if isinstance(self._training, LabelTraining) else {}
        return own | self._figures.measure()


def offline_training(
    engine: TrainEngine,
    config: Config,
    method: OfflineMethod,
    stored: StoredRollouts,
    labels: pa.Table | None,
    pad_id: int,
) -> PRMTraining:
    """Return the training of `method`, with figures on the held-out problems.

    Args:
        engine: this rank's, its module in the form of `method.prm`.
        config: seed, `supervised_prm` and temperature.
        method: from `choose_method`.
        stored: all rollouts and traces; the traces with log-probabilities where the method needs them.
        labels: PRM_LABELS of the same rollouts, for the objective `outcome`.
        pad_id: padding token.

    Raises:
        DataError: too few problems, or none has something to learn from.
    """
    section = config.supervised_prm
    config = config.model_copy(update={"prm": method.prm})
    learn, held_out = split_stored(stored, section.held_out, config.seed)
    figures = SelectionFigures(engine, config, held_out, pad_id)
    if method.objective is not None:
        return MeasuredTraining(AdversarialTraining(engine, config, method, learn, pad_id), figures)
    if labels is None:
        raise ValueError("the objective outcome needs labels")
    parts = split_by_problem(labels, section.held_out, config.seed)
    return MeasuredTraining(LabelTraining(engine, config, *parts, pad_id), figures)


def split_stored(stored: StoredRollouts, share: float, seed: int) -> tuple[StoredRollouts, pa.Table]:
    """Return what is learned from, without any trace of a held-out problem, and the held-out rollouts.

    Raises:
        DataError: there are too few problems.
    """
    learn, held_out = split_by_problem(stored.rollouts, share, seed, "rollouts")
    ours = pc.is_in(stored.traces["problem_id"], pc.unique(held_out["problem_id"]))
    return replace(stored, rollouts=learn, traces=stored.traces.filter(pc.invert(ours))), held_out
