"""The discriminator update of AIRL-S, and the PRM's scores of rollouts.

Source: Fu et al. 2018 (AIRL), arXiv 2508.14313 (AIRL-S). Per action (a step, or a token):
logit = f - l, where l is the policy's log-probability of the action; loss = softplus(-logit) on
reference actions and softplus(logit) on policy actions, each class with weight 1/2.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.data.schemas import STEP_SCORES
from airls_ray.learning.batches import Sequences, add_sums, all_rows, part_table, rank_batches, take_values
from airls_ray.learning.distinct import DistinctSequences, merge_equal_sequences
from airls_ray.learning.engine import ForwardEngine, TrainEngine, resolve_layout
from airls_ray.learning.prm_batch import PRMBatch
from airls_ray.objectives.airl import (
    DiscriminatorInputs,
    discriminator_loss,
    reduce_to_steps,
    shape_rewards,
    step_logits,
)
from airls_ray.tensors import PackedColumn, TokenBatch, to_packed

Reduction = Literal["mean", "sum"]


def step_reduction(config: PRMConfig) -> Reduction:
    """How token values become a step's: `auto` is the sum for `log_prob`, the mean for `scalar_head`."""
    if config.log_prob != "auto":
        return config.log_prob
    return "sum" if config.parameterisation == "log_prob" else "mean"


def update_prm(
    engine: TrainEngine,
    batch: PRMBatch,
    config: PRMConfig,
    *,
    temperature: float,
    pad_id: int,
    updates: int = 1,
) -> dict[str, float]:
    """Make `updates` optimiser updates, each on the whole batch; collective, same batch on every rank.

    With `accuracy_ceiling` below 1 a pass without gradients comes first, and all ranks skip the
    updates where both class accuracies were above it.

    Args:
        engine: this rank's engine, its module of `config.parameterisation`.
        batch: from `build_prm_batch`.
        config: loss and micro-batches.
        temperature: the sampler's; a log-probability PRM divides its logits by the same, so that its
            logits are 0 where it equals the policy.
        pad_id: padding token.
        updates: passes over the batch.

    Returns:
        `prm/loss, prm/expert_accuracy, prm/policy_accuracy, prm/entropy, prm/logit_abs_mean,
        prm/expert_share` of the first pass (when the sequences are new to the PRM),
        `prm/gradient_norm` (mean over updates), `prm/updates`, `prm/skipped` (0 or 1),
        `prm/sequences` (distinct ones: equal sequences are computed once). The same on every rank.
    """
    distinct = merge_equal_sequences(batch)
    rows = distinct.rows
    layout = resolve_layout(config.learner.layout, engine)
    batches = rank_batches(
        engine, batch.sequences, rows, config.learner.tokens_per_microbatch, layout, pad_id
    )
    head = {"prm/sequences": float(rows.numel()), "prm/skipped": 0.0, "prm/updates": float(updates)}
    if rows.numel() == 0:  # no problem has both classes: nothing to learn from
        return head | {"prm/skipped": 1.0, "prm/updates": 0.0}
    if config.accuracy_ceiling < 1.0:
        metrics = _pass(engine, batch, distinct, batches, config, temperature, learn=False)
        lowest = min(metrics["prm/expert_accuracy"], metrics["prm/policy_accuracy"])
        if lowest > config.accuracy_ceiling:
            return head | metrics | {"prm/skipped": 1.0, "prm/updates": 0.0, "prm/gradient_norm": 0.0}
    norms = []
    first: dict[str, float] = {}
    for _ in range(updates):
        metrics = _pass(engine, batch, distinct, batches, config, temperature, learn=True)
        norms.append(engine.step())
        first = first or metrics
    return head | first | {"prm/gradient_norm": sum(norms) / max(len(norms), 1)}


def _pass(
    engine: TrainEngine,
    batch: PRMBatch,
    distinct: DistinctSequences,
    batches: list[TokenBatch],
    config: PRMConfig,
    temperature: float,
    *,
    learn: bool,
) -> dict[str, float]:
    """One pass over the batch, with gradients if `learn`; metrics over all ranks."""
    sums: dict[str, float] = {}
    with torch.set_grad_enabled(learn):
        for number, part in enumerate(batches):
            f, log_pi = action_values(engine, part, take_values(batch.logprobs, part), config, temperature)
            inputs = _both_classes(
                step_logits(f, log_pi),
                take_values(distinct.expert_weights, part),
                take_values(distinct.policy_weights, part),
            )
            loss, parts = discriminator_loss(
                inputs, label_smoothing=config.label_smoothing, logit_clip=config.logit_clip
            )
            if learn:
                engine.backward(loss * engine.world_size, last=number == len(batches) - 1)
            add_sums(sums, {"loss": loss.detach(), **parts})
    return _metrics(engine.sum_over_ranks(sums))


def _both_classes(logits: Tensor, expert_weights: Tensor, policy_weights: Tensor) -> DiscriminatorInputs:
    """An action that stands on both sides (an equal trace and rollout) counts once on each."""
    on_expert, on_policy = expert_weights > 0, policy_weights > 0
    ones = torch.ones_like(expert_weights)
    return DiscriminatorInputs(
        logits_expert_is_high=torch.cat([logits[on_expert], logits[on_policy]]),
        labels_expert_is_one=torch.cat([ones[on_expert], 0 * ones[on_policy]]),
        weights=torch.cat([expert_weights[on_expert], policy_weights[on_policy]]),
    )


def _metrics(sums: dict[str, float]) -> dict[str, float]:
    weight = max(sums["expert_weight"] + sums["policy_weight"], 1e-12)
    actions = max(sums["expert_steps"] + sums["policy_steps"], 1.0)
    return {
        "prm/loss": sums["loss"],
        "prm/expert_accuracy": sums["expert_correct"] / max(sums["expert_weight"], 1e-12),
        "prm/policy_accuracy": sums["policy_correct"] / max(sums["policy_weight"], 1e-12),
        "prm/entropy": sums["entropy"] / weight,
        "prm/logit_abs_mean": sums["logit_abs"] / weight,
        "prm/expert_share": sums["expert_steps"] / actions,
    }


def action_values(
    engine: ForwardEngine, batch: TokenBatch, log_pi: Tensor, config: PRMConfig, temperature: float
) -> tuple[Tensor, Tensor]:
    """Run the PRM; return f and the policy's l of every action: [S] steps or [R] tokens.

    Args:
        engine: holds the PRM.
        batch: the micro-batch.
        log_pi: [R] log-probabilities of its response tokens under the current policy.
        config: parameterisation, action, reduction and shaping.
        temperature: of a log-probability PRM.
    """
    is_step = config.action == "step"
    how = step_reduction(config)
    action_log_pi = reduce_to_steps(log_pi, batch.step_index, batch.steps, how) if is_step else log_pi
    if config.parameterisation == "log_prob":
        log_phi, _ = engine.forward(batch.model_inputs(), temperature=temperature)
        f = reduce_to_steps(log_phi, batch.step_index, batch.steps, how) if is_step else log_phi
        return f, action_log_pi
    values, state_values = engine.forward(batch.model_inputs())
    f = values[batch.step_last] if is_step else values
    if state_values is not None:
        before = state_values[batch.step_first] if is_step else state_values
        rows = batch.step_rows if is_step else batch.token_rows
        f = shape_rewards(f, before, rows)
    return f, action_log_pi


def score_steps(
    engine: ForwardEngine,
    rollouts: pa.Table,
    logprobs: pa.Table | None,
    config: PRMConfig,
    *,
    temperature: float,
    pad_id: int,
) -> pa.Table:
    """Rewards, raw values and search scores of every step of this rank's rollouts.

    With `action: token` the token values of a step are reduced to it as its log-probabilities are.

    Args:
        engine: holds the PRM.
        rollouts: ROLLOUTS.
        logprobs: TOKEN_LOGPROBS under the current policy; None reads the rollouts' own.
        config: reward, search score and micro-batches.
        temperature: the sampler's.
        pad_id: padding token.

    Returns:
        STEP_SCORES with a first column `row`; see `merge_parts`.
    """
    sequences = Sequences.of(rollouts)
    log_pi: PackedColumn = to_packed((rollouts if logprobs is None else logprobs)["logprobs"])
    layout = resolve_layout(config.learner.layout, engine)
    batches = rank_batches(
        engine, sequences, all_rows(sequences), config.learner.tokens_per_microbatch, layout, pad_id
    )
    rewards, values, scores = [], [], []
    with torch.no_grad():
        for batch in batches:
            f, action_log_pi = action_values(engine, batch, take_values(log_pi, batch), config, temperature)
            if config.action == "token":
                how = step_reduction(config)
                f, action_log_pi = (
                    reduce_to_steps(x, batch.step_index, batch.steps, how) for x in (f, action_log_pi)
                )
            values.append(f)
            rewards.append(f - action_log_pi if config.reward == "log_odds" else f)
            scores.append(search_scores(f, action_log_pi, config))
    offsets = [_step_offsets(batch) for batch in batches]
    columns = {"rewards": (rewards, offsets), "values": (values, offsets), "scores": (scores, offsets)}
    return part_table(batches, columns, STEP_SCORES)


def search_scores(f: Tensor, log_pi: Tensor, config: PRMConfig) -> Tensor:
    """Scores in [0, 1] for search: sigmoid(f), exp(f) = phi(C_t), D = sigmoid(f - l), or a product of
    PRM and policy."""
    kind = config.search_score
    if kind == "auto":
        kind = "exp_f" if config.parameterisation == "log_prob" else "sigmoid_f"
    if kind == "ratio":
        return torch.sigmoid(f - log_pi)
    if kind == "product":
        return (
            ((f + log_pi) / 2).exp() if config.parameterisation == "log_prob" else torch.sigmoid(f + log_pi)
        )
    return f.exp() if kind == "exp_f" else torch.sigmoid(f)


def _step_offsets(batch: TokenBatch) -> Tensor:
    """int64 [B + 1]: steps of row b are offsets[b]:offsets[b + 1]."""
    counts = torch.bincount(batch.step_rows, minlength=batch.rows.numel())
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
