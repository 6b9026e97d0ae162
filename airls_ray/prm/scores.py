"""What a PRM says of rollouts: values of its actions, rewards for credit assignment, scores for search."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.data.schemas import STEP_SCORES
from airls_ray.learning.batches import Sequences, part_table
from airls_ray.learning.engine import ForwardEngine, resolve_layout
from airls_ray.learning.passes import computed_once
from airls_ray.objectives.airl import reduce_to_steps, shape_rewards
from airls_ray.objectives.distillation import distillation_rewards
from airls_ray.tensors import PackedColumn, TokenBatch, to_packed


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
    return prm_values(engine, batch, config, temperature), _per_action(log_pi, batch, config)


def prm_values(engine: ForwardEngine, batch: TokenBatch, config: PRMConfig, temperature: float) -> Tensor:
    """Run the PRM; return f of every action of a micro-batch: [S] steps or [R] tokens."""
    is_step = config.action == "step"
    if config.parameterisation == "log_prob":
        log_phi, _ = engine.forward(batch.model_inputs(), temperature=temperature)
        return _per_action(log_phi, batch, config)
    values, state_values = engine.forward(batch.model_inputs())
    f = values[batch.step_last] if is_step else values
    if state_values is not None:
        before = state_values[batch.step_first] if is_step else state_values
        rows = batch.step_rows if is_step else batch.token_rows
        f = shape_rewards(f, before, rows)
    return f


def score_steps(
    engine: ForwardEngine,
    rollouts: pa.Table,
    base_logprobs: pa.Table | None,
    config: PRMConfig,
    *,
    temperature: float,
    pad_id: int,
    log_odds_scale: float = 1.0,
) -> pa.Table:
    """Rewards, raw values and search scores of this rank's rollouts.

    With `action: token` the token values of a step are reduced to it as its log-probabilities are; the
    rewards stay per token where `reward_unit` is.

    Args:
        engine: holds the PRM.
        rollouts: ROLLOUTS; `logprobs` are the policy's own.
        base_logprobs: TOKEN_LOGPROBS that the reward compares with, those of a reference model; None reads
            the rollouts' own.
        config: reward, search score and micro-batches.
        temperature: the sampler's.
        pad_id: padding token.
        log_odds_scale: factor of the log-odds reward (PRIME's beta).

    Returns:
        STEP_SCORES with a first column `row`; see `merge_parts`.
    """
    sequences = Sequences.of(rollouts)
    own: PackedColumn = to_packed(rollouts["logprobs"])
    base = own if base_logprobs is None else to_packed(base_logprobs["logprobs"])
    actions, rows = computed_once(
        engine,
        sequences,
        sequences.step_ends if config.action == "step" else sequences.response,
        lambda batch: prm_values(engine, batch, config, temperature),
        config.learner.tokens_per_microbatch,
        resolve_layout(config.learner.layout, engine),
        pad_id,
    )
    # All rows at once, on the CPU: no model is asked any more, so a token needs no more than its step.
    steps = sequences.step_ends.take(rows)
    tokens = _step_tokens(steps)
    step_index = torch.repeat_interleave(torch.arange(tokens.numel()), tokens)

    def per_step(of_tokens: Tensor) -> Tensor:
        return reduce_to_steps(of_tokens, step_index, tokens.numel(), config.step_reduction)

    f, log_base, log_pi = (column.take(rows).values for column in (actions, base, own))
    if config.action == "step":
        log_base, log_pi = per_step(log_base), per_step(log_pi)
    if config.reward_unit == "token":
        rewards = step_rewards(f, log_base, log_pi, config, log_odds_scale)
    if config.action == "token":
        f, log_base, log_pi = per_step(f), per_step(log_base), per_step(log_pi)
    if config.reward_unit == "step":
        rewards = step_rewards(f, log_base, log_pi, config, log_odds_scale)
    if config.search_score == "reference_ratio":
        log_pi = log_base
    reward_offsets = own.take(rows).offsets if config.reward_unit == "token" else steps.offsets
    columns = {
        "rewards": PackedColumn(rewards, reward_offsets),
        "values": PackedColumn(f, steps.offsets),
        "scores": PackedColumn(search_scores(f, log_pi, tokens, config), steps.offsets),
    }
    return part_table(rows, columns, STEP_SCORES)


def step_rewards(
    f: Tensor, log_base: Tensor, log_pi: Tensor, config: PRMConfig, log_odds_scale: float = 1.0
) -> Tensor:
    """Rewards of actions [A]: scale (f - l), f, a probability p or 2 p - 1, or a teacher's (`prm.reward`).

    Args:
        f: [A], the PRM's values.
        log_base: [A], log-probabilities that `log_odds` compares with, of the reference model or the policy.
        log_pi: [A], those of the policy.
        config: the PRM's form.
        log_odds_scale: of `log_odds`.
    """
    if config.is_teacher:
        return distillation_rewards(f, log_pi, log_base, config.distillation_scale)
    if config.reward == "log_odds":
        return log_odds_scale * (f - log_base)
    if config.reward == "f":
        return f
    probability = f.exp() if config.parameterisation == "log_prob" else torch.sigmoid(f)
    return 2.0 * probability - 1.0 if config.reward == "signed_probability" else probability


def _per_action(log_probs: Tensor, batch: TokenBatch, config: PRMConfig) -> Tensor:
    if config.action == "token":
        return log_probs
    return reduce_to_steps(log_probs, batch.step_index, batch.steps, config.step_reduction)


def search_scores(f: Tensor, log_pi: Tensor, tokens: Tensor, config: PRMConfig) -> Tensor:
    """Scores in [0, 1] of steps for search: float64 [S]; what they are says `PRMConfig.score_kind`.

    sigmoid(f), D = sigmoid(f - l), or the product with the policy sigmoid(f + l). Of densities exp(f) =
    phi(C_t) and exp((f + l) / 2) the mean over the step's tokens, exp(f / tokens). `reference_ratio`:
    sigmoid(beta (f - l)) with l of the reference model. In float32 a sigmoid would be 1 from 17 on.

    Args:
        f: [S].
        log_pi: [S], log-probability of the step under the policy (the reference model), reduced as f.
        tokens: [S], of each step.
        config: the PRM's form.
    """
    f, log_pi = f.double(), log_pi.double()
    if config.search_score == "reference_ratio":
        return torch.sigmoid(config.prime.beta * (f - log_pi))
    if config.search_score == "ratio":
        return torch.sigmoid(f - log_pi)
    product = config.search_score == "product"
    if config.parameterisation == "scalar_head":
        return torch.sigmoid(f + log_pi if product else f)
    log_density = (f + log_pi) / 2 if product else f
    return (log_density / tokens if config.score_kind == "token_mean" else log_density).exp()


def _step_tokens(ends: PackedColumn) -> Tensor:
    """int64 [S]: tokens of each step, from the steps' exclusive ends in their responses."""
    ends_of_all = ends.values.to(torch.int64)
    tokens = ends_of_all.diff(prepend=ends_of_all.new_zeros(1))
    first = ends.offsets[:-1][ends.lengths > 0]
    tokens[first] = ends_of_all[first]
    return tokens
