"""The policy update: one iteration's rollouts and advantages into optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.batches import Sequences, add_sums
from airls_ray.learning.engine import TrainEngine, max_over_ranks, norm_metrics, resolve_layout
from airls_ray.learning.group_filter import group_numbers, rows_that_learn
from airls_ray.learning.old_logprobs import OldLogprobs
from airls_ray.learning.rollout_batches import RolloutBatch, rollout_batches
from airls_ray.learning.zero_advantages import without_advantage, zero_advantage_is_zero_gradient
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.tensors import PackedColumn, to_packed


def update_policy(
    engine: TrainEngine,
    rollouts: pa.Table,
    advantages: pa.ChunkedArray | pa.Array,
    reference_logprobs: pa.Table | None,
    method: MethodConfig,
    learner: LearnerConfig,
    *,
    temperature: float,
    max_response_tokens: int,
    pad_id: int,
    scores: pa.Table | None = None,
) -> dict[str, float]:
    """Make a `PolicyUpdate` with advantages that are known already; arguments, result and errors are its."""
    update = PolicyUpdate(
        engine, rollouts, method, learner, temperature=temperature, pad_id=pad_id, scores=scores
    )
    return update.learn(advantages, reference_logprobs, max_response_tokens=max_response_tokens)


class PolicyUpdate:
    """The optimiser updates of one iteration; collective, every rank passes the same tables.

    The groups are cut into `method.updates_per_iteration` shares, one update each, and all shares are
    passed `method.epochs` times. Old log-probabilities are the sampler's where there is one update
    (the policy that sampled is the policy that learns); else the trainer's own, before the
    first update. `importance_cap` compares trainer and sampler: there the old ones are the trainer's.
    Rollouts that `sequence_mask` leaves out count in no mean; which they are is known before credit is
    assigned. Nothing is computed twice: equal rollouts are one sequence to the model, and those without an
    advantage, where the loss gives them no gradient, are passed once, forwards, for the metrics.

    Args of the constructor:
        engine: this rank's engine, its module a `PolicyModule`.
        rollouts: ROLLOUTS.
        method: loss, clip and how the rollouts are shared out.
        learner: micro-batches and layout.
        temperature: the sampler's.
        pad_id: padding token.
        scores: STEP_SCORES, joined by position, for filters that take them; None without a PRM.

    Raises (the constructor):
        DoorError: a filter of the user's own failed.
    """

    def __init__(
        self,
        engine: TrainEngine,
        rollouts: pa.Table,
        method: MethodConfig,
        learner: LearnerConfig,
        *,
        temperature: float,
        pad_id: int,
        scores: pa.Table | None = None,
    ) -> None:
        self._engine = engine
        self._method = method
        self._learner = learner
        self._pad_id = pad_id
        self._sequences = Sequences.of(rollouts)
        self._rows = rows_that_learn(rollouts, method.filters, scores)
        self._shares = _shares(rollouts, self._rows, method.updates_per_iteration)
        self._temperature = temperature
        self._old = OldLogprobs(engine, to_packed(rollouts["logprobs"]), temperature)
        self._masked_work: list[list[RolloutBatch]] | None = None
        self.learns = torch.zeros(rollouts.num_rows, dtype=torch.bool)
        """Bool [rows]: which rollouts are learned from, after all filters and the sequence mask."""
        if method.sequence_mask > 0:
            self._masked_work = [self._batches(share) for share in self._shares]
            self._old.compute(self._masked_work)
            self.learns = self._old.near_rows(self._masked_work, method.sequence_mask)
        else:
            self.learns[self._rows] = True

    def learn(
        self,
        advantages: pa.ChunkedArray | pa.Array,
        reference_logprobs: pa.Table | None,
        *,
        max_response_tokens: int,
    ) -> dict[str, float]:
        """Make the updates.

        Args:
            advantages: list column joined by position: one value per step or one per response token.
            reference_logprobs: TOKEN_LOGPROBS under the reference model, joined by position.
            max_response_tokens: the sampler's limit, for aggregation `constant`.

        Returns:
            Metrics named `policy/...`, and `sync/logprob_difference_mean|max` in nats: |trainer - sampler|
            over the response tokens before the first update. `policy/sequences` counts the distinct
            sequences that had a backward pass, in all updates; `policy/skipped_updates` the updates without a
            finite gradient. The same on every rank.

        Raises:
            ValueError: the advantages fit neither steps nor tokens.
            DoorError: a loss of the user's own failed.
        """
        method, rows, lengths = self._method, self._rows, self._sequences.response.lengths
        named = method.policy_loss
        policy_loss = CheckedLoss(named.door(), named.where, named.open())
        per_token = _per_token(to_packed(advantages), self._sequences)
        silent = torch.zeros(lengths.numel(), dtype=torch.bool)
        if zero_advantage_is_zero_gradient(policy_loss, method):
            silent[rows] = without_advantage(per_token, rows)
        inputs = _Inputs(
            engine=self._engine,
            old=self._old,
            advantages=per_token,
            reference=None if reference_logprobs is None else to_packed(reference_logprobs["logprobs"]),
            temperature=self._temperature,
            trainer_is_old=method.importance_cap > 0 or len(self._shares) * method.epochs > 1,
            entropy_gradient=method.entropy_coefficient != 0.0,
        )
        work = self._masked_work
        if work is None:
            work = [self._batches(share[~silent[share]]) for share in self._shares]
            # The first share meets the policy as it was: the pass that it learns from gives its old ones.
            self._old.compute(work[1:])

        def normaliser_of(some: Tensor) -> PolicyNormaliser:
            sizes = lengths[some]
            return PolicyNormaliser(int(sizes.sum()), int((sizes > 0).sum()), max_response_tokens)

        passes = _Passes(self._engine, inputs, policy_loss, method)
        if bool(silent.any()):
            passes.measure(self._batches(silent.nonzero().squeeze(1)), normaliser_of(rows))
        norms: list[float] = []
        for _ in range(method.epochs):
            for share, batches in zip(self._shares, work, strict=True):
                passes.learn(batches, normaliser_of(share[self.learns[share]]))
                norms.append(self._engine.step())
        return _metrics(self._engine, passes.sums, norms, self._old, lengths[rows])

    def _batches(self, rows: Tensor) -> list[RolloutBatch]:
        layout = resolve_layout(self._learner.layout, self._engine)
        budget = self._learner.tokens_per_microbatch
        return rollout_batches(self._engine, self._sequences, rows, budget, layout, self._pad_id)


class _Passes:
    """Passes of the policy over micro-batches, and what this rank measured in them."""

    def __init__(
        self, engine: TrainEngine, inputs: _Inputs, policy_loss: CheckedLoss, method: MethodConfig
    ) -> None:
        self._engine = engine
        self._inputs = inputs
        self._loss = policy_loss
        self._method = method
        self.sums: dict[str, float] = {}

    def learn(self, batches: list[RolloutBatch], normaliser: PolicyNormaliser) -> None:
        """Accumulate the gradients of one update."""
        for number, batch in enumerate(batches):
            loss, parts = self._of(batch, normaliser)
            self._engine.backward(loss * self._engine.world_size, last=number == len(batches) - 1)
            add_sums(self.sums, {**parts, "sequences": torch.tensor(float(batch.distinct.rows.numel()))})

    def measure(self, batches: list[RolloutBatch], normaliser: PolicyNormaliser) -> None:
        """Rollouts without a gradient, which count in each epoch as before the first."""
        with torch.no_grad():
            for batch in batches:
                _, parts = self._of(batch, normaliser)
                add_sums(self.sums, {name: value * self._method.epochs for name, value in parts.items()})

    def _of(self, batch: RolloutBatch, normaliser: PolicyNormaliser) -> tuple[Tensor, dict[str, Tensor]]:
        given = self._inputs.of(batch)
        loss, parts = self._loss(given, self._method, normaliser)
        tokens = torch.tensor(float(given.logprobs.numel()))
        return loss, {**parts, "loss": loss.detach(), "tokens": tokens}


@dataclass(frozen=True)
class _Inputs:
    """Assembles the loss's inputs of a micro-batch."""

    engine: TrainEngine
    old: OldLogprobs
    advantages: PackedColumn
    """One value for each response token."""
    reference: PackedColumn | None
    temperature: float
    trainer_is_old: bool
    """Else the sampler's log-probabilities are the old ones."""
    entropy_gradient: bool

    def of(self, batch: RolloutBatch) -> PolicyLossInputs:
        """Run the policy on a micro-batch and gather what the loss reads beside it."""
        logprobs, entropy = self.engine.forward(
            batch.distinct.model_inputs(),
            temperature=self.temperature,
            entropy=True,
            entropy_gradient=self.entropy_gradient,
        )
        logprobs = batch.expand(logprobs)
        if self.old.get(batch) is None:  # nothing has changed since these rollouts were sampled
            self.old.keep(batch, logprobs.detach(), is_old=self.trainer_is_old)
        old = self.old.get(batch)
        assert old is not None
        return PolicyLossInputs(
            logprobs=logprobs,
            old_logprobs=old,
            advantages=batch.take(self.advantages),
            row_offsets=batch.row_offsets,
            reference_logprobs=None if self.reference is None else batch.take(self.reference),
            entropy=None if entropy is None else batch.expand(entropy),
            sampler_logprobs=batch.take(self.old.sampler),
        )


def _per_token(values: PackedColumn, sequences: Sequences) -> PackedColumn:
    """Give every response token the value of its step; values per token stay as they are."""
    response, step_ends = sequences.response, sequences.step_ends
    if torch.equal(values.offsets, response.offsets):
        return values
    if not torch.equal(values.offsets, step_ends.offsets):
        raise ValueError(
            f"advantages need one value per step ({step_ends.values.numel()}) or per response token "
            f"({response.values.numel()}), but there are {values.values.numel()}"
        )
    ends = step_ends.values.to(torch.int64) + torch.repeat_interleave(
        response.offsets[:-1], step_ends.lengths
    )
    lengths = torch.diff(ends, prepend=torch.zeros(1, dtype=torch.int64))
    return PackedColumn(torch.repeat_interleave(values.values, lengths), response.offsets)


def _shares(rollouts: pa.Table, rows: Tensor, updates: int) -> list[Tensor]:
    """Cut the groups of `rows` into `updates` shares of consecutive groups; empty shares are left out."""
    _, group = torch.unique(group_numbers(rollouts)[rows], return_inverse=True)
    groups = int(group.max()) + 1 if group.numel() else 0
    share = group * updates // max(groups, 1)
    return [part for part in (rows[share == number] for number in range(updates)) if part.numel()]


_SAID_ELSEWHERE = {"tokens", "loss", "difference", "sampler_difference", "sequences"}
_NAMES = {"ratio": "ratio_mean", "approx_kl": "approx_kl", "clip_share": "clip_share", "entropy": "entropy"}
_NAMES |= {"reference_kl": "reference_kl", "importance_weight": "importance_weight"}
_NAMES |= {"kept_share": "kept_share"}


def _metrics(
    engine: TrainEngine, sums: dict[str, float], norms: list[float], old: OldLogprobs, lengths: Tensor
) -> dict[str, float]:
    """Sums of all ranks as means: over the tokens passed, or over the updates made."""
    tokens, updates = int(lengths.sum()), max(len(norms), 1)
    totals = engine.sum_over_ranks({**sums, "difference": old.difference_sum})
    passed = max(totals.get("tokens", 0.0), 1.0)
    names = {key: key for key in totals if key not in _SAID_ELSEWHERE} | _NAMES  # a loss may have its own
    metrics = {f"policy/{name}": totals[key] / passed for key, name in names.items() if key in totals}
    return metrics | {
        "policy/loss": totals.get("loss", 0.0) / updates,
        **{f"policy/{name}": value for name, value in norm_metrics(norms).items()},
        "policy/tokens": float(tokens),
        "policy/rollouts": float(lengths.numel()),
        "policy/sequences": totals.get("sequences", 0.0),
        "sync/logprob_difference_mean": totals["difference"] / max(tokens, 1),
        "sync/logprob_difference_max": max_over_ranks(engine, old.difference_max),
    }
