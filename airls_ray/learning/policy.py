"""The policy update: one iteration's rollouts and advantages into optimiser steps."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.batches import Sequences, add_sums, rank_batches, take_values
from airls_ray.learning.engine import TrainEngine, max_over_ranks, resolve_layout, share_rows
from airls_ray.learning.group_filter import group_numbers, rows_that_learn
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, near_rollouts
from airls_ray.tensors import PackedColumn, TokenBatch, to_packed


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
    (the policy that sampled is the policy that learns); else the trainer's own, computed before the
    first update. `importance_cap` compares trainer and sampler: there the old ones are the trainer's.
    Rollouts that `sequence_mask` leaves out count in no mean.

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
        over the response tokens before the first update. The same on every rank.

    Raises:
        ValueError: the advantages fit neither steps nor tokens.
        DoorError: a loss or a filter of the user's own failed.
    """
    sequences = Sequences.of(rollouts)
    rows = rows_that_learn(rollouts, method.filters, scores)
    shares = _shares(rollouts, rows, method.updates_per_iteration)
    layout = resolve_layout(learner.layout, engine)
    work = [
        rank_batches(engine, sequences, share, learner.tokens_per_microbatch, layout, pad_id)
        for share in shares
    ]
    inputs = _Inputs(engine, rollouts, sequences, advantages, reference_logprobs, temperature, method)
    if len(shares) * method.epochs > 1 or method.sequence_mask > 0:
        inputs.compute_old(work)
    kept = inputs.kept_rows(work, method.sequence_mask) if method.sequence_mask > 0 else None

    named = method.policy_loss
    policy_loss = CheckedLoss(named.door(), named.where, named.open())
    sums: dict[str, float] = {}
    norms: list[float] = []
    for _ in range(method.epochs):
        for share, batches in zip(shares, work, strict=True):
            lengths = sequences.response.lengths[share if kept is None else share[kept[share]]]
            normaliser = PolicyNormaliser(
                tokens=int(lengths.sum()),
                rollouts=int((lengths > 0).sum()),
                max_response_tokens=max_response_tokens,
            )
            _accumulate(engine, inputs, batches, policy_loss, method, normaliser, sums)
            norms.append(engine.step())
    return _metrics(engine, sums, norms, inputs, sequences.response.lengths[rows])


def _accumulate(
    engine: TrainEngine,
    inputs: _Inputs,
    batches: list[TokenBatch],
    policy_loss: CheckedLoss,
    method: MethodConfig,
    normaliser: PolicyNormaliser,
    sums: dict[str, float],
) -> None:
    """Accumulate the gradients of one update, and this rank's metrics in `sums`."""
    for number, batch in enumerate(batches):
        given = inputs.of(batch)
        loss, parts = policy_loss(given, method, normaliser)
        engine.backward(loss * engine.world_size, last=number == len(batches) - 1)
        tokens = torch.tensor(float(given.logprobs.numel()))
        add_sums(sums, {**parts, "loss": loss.detach(), "tokens": tokens})


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
        self._advantages = _per_token(to_packed(advantages), sequences)
        self._reference = None if reference is None else to_packed(reference["logprobs"])
        self._temperature = temperature
        self._trainer_is_old = method.importance_cap > 0 or method.sequence_mask > 0
        self._entropy_gradient = method.entropy_coefficient != 0.0
        self._old: dict[int, Tensor] = {}
        self._compared: set[int] = set()
        self.difference_sum = 0.0
        self.difference_max = 0.0

    def compute_old(self, work: list[list[TokenBatch]]) -> None:
        """Old log-probabilities of every micro-batch of this rank, before anything has changed."""
        with torch.no_grad():
            for batch in (batch for batches in work for batch in batches):
                logprobs, _ = self._engine.forward(batch.model_inputs(), temperature=self._temperature)
                self._old[id(batch)] = logprobs
                self._compare(batch, logprobs)

    def kept_rows(self, work: list[list[TokenBatch]], limit: float) -> Tensor:
        """Rows whose rollouts the sequence mask keeps, known to every rank: bool [rows]."""
        rows = self._sampler.rows
        kept = torch.zeros(rows)
        for batch in (batch for batches in work for batch in batches):
            difference = self._old[id(batch)] - take_values(self._sampler, batch)
            near = near_rollouts(difference, batch.row_offsets, limit).cpu()
            starts = batch.row_offsets[:-1].cpu()
            some = batch.row_offsets.diff().cpu() > 0
            kept[batch.rows.cpu()[some]] = near[starts[some]].float()
        return share_rows(self._engine, kept, torch.arange(rows)) > 0.5

    def of(self, batch: TokenBatch) -> PolicyLossInputs:
        """Run the policy on a micro-batch and gather what the loss reads beside it."""
        logprobs, entropy = self._engine.forward(
            batch.model_inputs(),
            temperature=self._temperature,
            entropy=True,
            entropy_gradient=self._entropy_gradient,
        )
        sampler = take_values(self._sampler, batch)
        old = self._old.get(id(batch))
        if old is None:  # the one update: nothing has changed since these rollouts were sampled
            self._compare(batch, logprobs.detach())
            old = logprobs.detach() if self._trainer_is_old else sampler
        return PolicyLossInputs(
            logprobs=logprobs,
            old_logprobs=old,
            advantages=take_values(self._advantages, batch),
            row_offsets=batch.row_offsets,
            reference_logprobs=None if self._reference is None else take_values(self._reference, batch),
            entropy=entropy,
            sampler_logprobs=sampler,
        )

    def _compare(self, batch: TokenBatch, logprobs: Tensor) -> None:
        if logprobs.numel():
            difference = (logprobs - take_values(self._sampler, batch)).abs()
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


_SAID_ELSEWHERE = {"tokens", "loss", "difference", "sampler_difference"}
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
        "policy/gradient_norm": sum(norms) / updates,
        "policy/updates": float(len(norms)),
        "policy/tokens": float(tokens),
        "policy/rollouts": float(lengths.numel()),
        "sync/logprob_difference_mean": totals["difference"] / max(tokens, 1),
        "sync/logprob_difference_max": max_over_ranks(engine, inputs.difference_max),
    }
