"""The policy update: one iteration's rollouts and advantages into optimiser steps."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.batches import Sequences, add_sums
from airls_ray.learning.engine import TrainEngine, max_over_ranks, norm_metrics, resolve_layout, share_rows
from airls_ray.learning.group_filter import group_numbers, rows_that_learn
from airls_ray.learning.rollout_batches import RolloutBatch, rollout_batches
from airls_ray.learning.zero_advantages import without_advantage, zero_advantage_is_zero_gradient
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, near_rollouts
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
    """Make the optimiser updates of one iteration; collective, every rank passes the same tables.

    The groups are cut into `method.updates_per_iteration` shares, one update each, and all shares are
    passed `method.epochs` times. Old log-probabilities are the sampler's where there is one update
    (the policy that sampled is the policy that learns); else the trainer's own, before the
    first update. `importance_cap` compares trainer and sampler: there the old ones are the trainer's.
    Rollouts that `sequence_mask` leaves out count in no mean. Nothing is computed twice: equal rollouts
    are one sequence to the model, and those without an advantage, where the loss gives them no gradient,
    are passed once, forwards, for the metrics.

    Args:
        engine: this rank's engine, its module a `PolicyModule`.
        rollouts: ROLLOUTS.
        advantages: list column joined by position: one value per step or one per response token.
        reference_logprobs: TOKEN_LOGPROBS under the reference model, joined by position.
        method: loss, clip and how the rollouts are shared out.
        learner: micro-batches and layout.
        temperature: the sampler's.
        max_response_tokens: the sampler's limit, for aggregation `constant`.
        pad_id: padding token.
        scores: STEP_SCORES, joined by position, for filters that take them; None without a PRM.

    Returns:
        Metrics named `policy/...`, and `sync/logprob_difference_mean|max` in nats: |trainer - sampler|
        over the response tokens before the first update. `policy/sequences` counts the distinct sequences
        that had a backward pass, in all updates; `policy/skipped_updates` the updates without a finite
        gradient. The same on every rank.

    Raises:
        ValueError: the advantages fit neither steps nor tokens.
        DoorError: a loss or a filter of the user's own failed.
    """
    sequences = Sequences.of(rollouts)
    rows = rows_that_learn(rollouts, method.filters, scores)
    shares = _shares(rollouts, rows, method.updates_per_iteration)
    layout = resolve_layout(learner.layout, engine)
    named = method.policy_loss
    policy_loss = CheckedLoss(named.door(), named.where, named.open())
    inputs = _Inputs(engine, rollouts, sequences, advantages, reference_logprobs, temperature, method)
    silent = torch.zeros(sequences.response.rows, dtype=torch.bool)
    if zero_advantage_is_zero_gradient(policy_loss, method):
        silent[rows] = without_advantage(inputs.advantages, rows)

    def batches_of(some: Tensor) -> list[RolloutBatch]:
        return rollout_batches(engine, sequences, some, learner.tokens_per_microbatch, layout, pad_id)

    def normaliser_of(some: Tensor) -> PolicyNormaliser:
        lengths = sequences.response.lengths[some]
        return PolicyNormaliser(int(lengths.sum()), int((lengths > 0).sum()), max_response_tokens)

    work = [batches_of(share[~silent[share]]) for share in shares]
    inputs.trainer_is_old |= len(shares) * method.epochs > 1
    # The first share meets the policy as it was: the pass that it learns from gives its old ones, too.
    inputs.compute_old(work if method.sequence_mask > 0 else work[1:])
    kept = inputs.kept_rows(work, method.sequence_mask) if method.sequence_mask > 0 else None
    passes = _Passes(engine, inputs, policy_loss, method)
    if bool(silent.any()):
        passes.measure(batches_of(silent.nonzero().squeeze(1)), normaliser_of(rows))
    norms: list[float] = []
    for _ in range(method.epochs):
        for share, batches in zip(shares, work, strict=True):
            passes.learn(batches, normaliser_of(share if kept is None else share[kept[share]]))
            norms.append(engine.step())
    return _metrics(engine, passes.sums, norms, inputs, sequences.response.lengths[rows])


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


class _Inputs:
    """Assembles the loss's inputs of a micro-batch, and keeps what is known of the sampler's error."""

    def __init__(
        self,
        engine: TrainEngine,
        rollouts: pa.Table,
        sequences: Sequences,
        advantages: pa.ChunkedArray | pa.Array,
        reference: pa.Table | None,
        temperature: float,
        method: MethodConfig,
    ) -> None:
        self._engine = engine
        self._sampler = to_packed(rollouts["logprobs"])
        self.advantages = _per_token(to_packed(advantages), sequences)
        """One value for each response token."""
        self._reference = None if reference is None else to_packed(reference["logprobs"])
        self._temperature = temperature
        self.trainer_is_old = method.importance_cap > 0 or method.sequence_mask > 0
        """Else the sampler's log-probabilities are the old ones."""
        self._entropy_gradient = method.entropy_coefficient != 0.0
        self._old: dict[RolloutBatch, Tensor] = {}
        self.difference_sum = 0.0
        self.difference_max = 0.0

    def compute_old(self, work: list[list[RolloutBatch]]) -> None:
        """Old log-probabilities of these micro-batches, before anything has changed."""
        with torch.no_grad():
            for batch in (batch for batches in work for batch in batches):
                logprobs, _ = self._engine.forward(
                    batch.distinct.model_inputs(), temperature=self._temperature
                )
                self._old[batch] = batch.expand(logprobs)
                self._compare(batch, self._old[batch])

    def kept_rows(self, work: list[list[RolloutBatch]], limit: float) -> Tensor:
        """Rows whose rollouts the sequence mask keeps, known to every rank: bool [rows]."""
        rows = self._sampler.rows
        kept = torch.zeros(rows)
        for batch in (batch for batches in work for batch in batches):
            difference = self._old[batch] - batch.take(self._sampler)
            near = near_rollouts(difference, batch.row_offsets, limit).cpu()
            starts = batch.row_offsets[:-1].cpu()
            some = batch.row_offsets.diff().cpu() > 0
            kept[batch.rows[some]] = near[starts[some]].float()
        return share_rows(self._engine, kept, torch.arange(rows)) > 0.5

    def of(self, batch: RolloutBatch) -> PolicyLossInputs:
        """Run the policy on a micro-batch and gather what the loss reads beside it."""
        logprobs, entropy = self._engine.forward(
            batch.distinct.model_inputs(),
            temperature=self._temperature,
            entropy=True,
            entropy_gradient=self._entropy_gradient,
        )
        logprobs = batch.expand(logprobs)
        sampler = batch.take(self._sampler)
        old = self._old.get(batch)
        if old is None:  # nothing has changed since these rollouts were sampled
            self._compare(batch, logprobs.detach())
            old = logprobs.detach() if self.trainer_is_old else sampler
            self._old[batch] = old
        return PolicyLossInputs(
            logprobs=logprobs,
            old_logprobs=old,
            advantages=batch.take(self.advantages),
            row_offsets=batch.row_offsets,
            reference_logprobs=None if self._reference is None else batch.take(self._reference),
            entropy=None if entropy is None else batch.expand(entropy),
            sampler_logprobs=sampler,
        )

    def _compare(self, batch: RolloutBatch, logprobs: Tensor) -> None:
        if logprobs.numel():
            difference = (logprobs - batch.take(self._sampler)).abs()
            self.difference_sum += float(difference.sum())
            self.difference_max = max(self.difference_max, float(difference.max()))


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
    engine: TrainEngine, sums: dict[str, float], norms: list[float], inputs: _Inputs, lengths: Tensor
) -> dict[str, float]:
    """Sums of all ranks as means: over the tokens passed, or over the updates made."""
    tokens, updates = int(lengths.sum()), max(len(norms), 1)
    totals = engine.sum_over_ranks({**sums, "difference": inputs.difference_sum})
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
        "sync/logprob_difference_max": max_over_ranks(engine, inputs.difference_max),
    }
