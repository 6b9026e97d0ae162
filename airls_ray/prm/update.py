"""The PRM's update: one frame for all objectives.

    PRM batch -> equal sequences merged -> this rank's micro-batches -> values of the actions
              -> the objective's loss + output L2 + trust region -> one optimiser update a pass

An iteration may come in several batches (`shares.py`), which the updates take in turns.

What differs between objectives is in `airls_ray/prm/objectives/`, one file each, and, as pure functions, in
`airls_ray/objectives/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.learning.batches import add_sums, rank_batches, take_values
from airls_ray.learning.engine import TrainEngine, norm_metrics, resolve_layout, share_rows
from airls_ray.prm.batch import PRMBatch
from airls_ray.prm.distinct import DistinctSequences, merge_equal_sequences
from airls_ray.prm.named_objective import NamedObjective, accuracies_of
from airls_ray.prm.objective import Actions, RowSums
from airls_ray.prm.scores import action_values
from airls_ray.tensors import TokenBatch, segment_sum


def update_prm(
    engine: TrainEngine,
    batches: Sequence[PRMBatch],
    config: PRMConfig,
    *,
    temperature: float,
    pad_id: int,
    updates: int = 1,
) -> dict[str, float]:
    """Make `updates` optimiser updates, each on the next batch; collective, same batches on every rank.

    With `accuracy_ceiling` below 1 a pass without gradients comes first, and all ranks skip the
    updates where both class accuracies were above it.

    Args:
        engine: this rank's engine, its module of `config.parameterisation`.
        batches: from `build_prm_batch`, which names the objective; one, or a share of the iteration each.
        config: objective, stabilisers and micro-batches.
        temperature: the sampler's; a log-probability PRM divides its logits by the same, so that its
            logits are 0 where it equals the policy.
        pad_id: padding token.
        updates: how many; a batch has its turn again after the last one.

    Returns:
        Of the first pass over each batch (when the sequences are new to the PRM) `prm/loss` and what the
        objective measures (`prm/expert_accuracy, prm/policy_accuracy`, ...); `prm/output_abs_mean`,
        `prm/output_drift` (root mean square change of the outputs over the updates before the last one;
        with a drift penalty), `prm/gradient_norm` (mean over updates), `prm/updates`,
        `prm/skipped_updates` (those without a finite gradient), `prm/skipped` (0 or 1: nothing was to be
        learned), `prm/sequences` (distinct ones of all batches: equal sequences are computed once). The same
        on every rank.

    Raises:
        DoorError: an objective of the user's own failed.
    """
    works = [_Work(engine, batch, config, temperature, pad_id) for batch in batches]
    works = [work for work in works if work.sequences]
    head = {
        "prm/sequences": float(sum(work.sequences for work in works)),
        "prm/skipped": 0.0,
        "prm/skipped_updates": 0.0,
        "prm/updates": float(updates),
    }
    if not works:  # for example no problem with both classes: nothing to learn from
        return head | {"prm/skipped": 1.0, "prm/updates": 0.0}
    if config.accuracy_ceiling < 1.0:
        metrics = _means([work.run(learn=False) for work in works])
        lowest = min(accuracies_of(metrics, batches[0].objective.name))
        if lowest > config.accuracy_ceiling:
            return head | metrics | {"prm/skipped": 1.0, "prm/updates": 0.0, "prm/gradient_norm": 0.0}
    if config.drift_penalty > 0:
        for work in works:
            work.remember_outputs()
    norms, passes = [], []
    for number in range(updates):
        passes.append(works[number % len(works)].run(learn=True))
        norms.append(engine.step())
    last = _means(passes[-len(works) :])
    drift = {key: last[key] for key in ("prm/output_drift",) if key in last}
    first = _means(passes[: len(works)])
    return head | first | drift | {f"prm/{name}": value for name, value in norm_metrics(norms).items()}


def _means(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric's mean over the batches that have it."""
    names = dict.fromkeys(name for one in metrics for name in one)
    return {name: fmean(one[name] for one in metrics if name in one) for name in names}


class _Work:
    """A batch on this rank."""

    def __init__(
        self, engine: TrainEngine, batch: PRMBatch, config: PRMConfig, temperature: float, pad_id: int
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._config = config
        self._temperature = temperature
        self._objective = NamedObjective(batch.objective, batch.traits, config)
        self.distinct: DistinctSequences = merge_equal_sequences(batch)
        self._parts: list[TokenBatch] = rank_batches(
            engine,
            batch.sequences,
            self.distinct.rows,
            config.learner.tokens_per_microbatch,
            resolve_layout(config.learner.layout, engine),
            pad_id,
        )
        self._before: list[Tensor] = []

    @property
    def sequences(self) -> int:
        """Distinct ones that have a weight, on all ranks."""
        return self.distinct.rows.numel()

    def run(self, *, learn: bool) -> dict[str, float]:
        """One pass over the batch, with gradients if `learn`; metrics over all ranks."""
        if self._batch.traits.needs_row_sums:
            self._objective.prepare(self._row_sums())
        measured: dict[str, float] = {}
        with torch.set_grad_enabled(learn):
            for number, part in enumerate(self._parts):
                actions = self._actions(part)
                loss, sums = self._objective.loss(actions)
                loss = loss + self._stabilisers(actions, number, sums)
                if learn:
                    self._engine.backward(loss * self._engine.world_size, last=number == len(self._parts) - 1)
                add_sums(measured, {**sums, "loss": loss.detach()})
        totals = self._engine.sum_over_ranks(measured)
        weight = max(totals["weight"], 1e-12)
        metrics = {
            "prm/loss": totals["loss"],
            "prm/output_abs_mean": totals["output_abs"] / weight,
            **self._objective.metrics(totals),
        }
        if "drift" in totals:
            metrics["prm/output_drift"] = (totals["drift"] / weight) ** 0.5
        return metrics

    def remember_outputs(self) -> None:
        """Keep this rank's outputs as they are now, for the trust region."""
        with torch.no_grad():
            self._before = [self._output(self._actions(part)) for part in self._parts]

    def _actions(self, part: TokenBatch) -> Actions:
        config, distinct = self._config, self.distinct
        f, base = action_values(
            self._engine, part, take_values(self._batch.logprobs, part), config, self._temperature
        )
        return Actions(
            f=f,
            log_base=base,
            rows=part.step_rows if config.action == "step" else part.token_rows,
            sequences=part.rows,
            expert_weights=take_values(distinct.expert_weights, part),
            policy_weights=take_values(distinct.policy_weights, part),
        )

    def _output(self, actions: Actions) -> Tensor:
        """What the network adds: f of a scalar head, the log-ratio of a log-probability PRM."""
        return actions.f if self._config.parameterisation == "scalar_head" else actions.f - actions.log_base

    def _stabilisers(self, actions: Actions, number: int, sums: dict[str, Tensor]) -> Tensor:
        """Output L2 and trust region, both means over the actions by their weight; measured in `sums`."""
        weight, output = actions.expert_weights + actions.policy_weights, self._output(actions)
        sums["weight"] = weight.sum()
        sums["output_abs"] = (weight * output.detach().abs()).sum()
        penalty = self._config.output_l2 * (weight * output.square()).sum()
        if self._before:
            drift = (weight * (output - self._before[number]).square()).sum()
            sums["drift"] = drift.detach()
            penalty = penalty + self._config.drift_penalty * drift
        return penalty

    def _row_sums(self) -> RowSums:
        """Sums over whole sequences, known to every rank; a pass without gradients."""
        size = self._batch.sequences.response.rows
        phi, log_pi = (torch.zeros(size, dtype=torch.float64) for _ in range(2))
        with torch.no_grad():
            for part in self._parts:
                actions = self._actions(part)
                for total, values in ((phi, actions.f), (log_pi, actions.log_base)):
                    sums = segment_sum(values.double(), actions.rows, actions.sequences.numel())
                    total[actions.sequences.cpu()] = sums.cpu()
        weights = self.distinct.policy_weights
        owner = torch.repeat_interleave(torch.arange(weights.rows), weights.lengths)
        return RowSums(
            phi=share_rows(self._engine, phi, self.distinct.rows),
            log_pi=share_rows(self._engine, log_pi, self.distinct.rows),
            lengths=weights.lengths,
            policy_weights=segment_sum(weights.values.double(), owner, weights.rows),
            problems=self._batch.problem,
            rollouts=self._batch.policy_rollouts,
        )
