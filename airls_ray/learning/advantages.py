"""Credit assignment on tables: outcomes and PRM rewards in, one advantage per step or token out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.schema import MethodConfig
from airls_ray.credit import formulas as credit
from airls_ray.credit.own import term_values, transformed
from airls_ray.data.schemas import REWARD_STEPS as STEPS
from airls_ray.data.schemas import REWARD_SUM as SUM
from airls_ray.grading.learned_outcomes import learned_outcomes
from airls_ray.learning.alone_logprobs import NAME as ALONE
from airls_ray.learning.alone_logprobs import row_means
from airls_ray.learning.group_filter import group_numbers, rollout_values, rows_that_learn
from airls_ray.tensors import PackedColumn, to_list_column, to_packed

AnswerGains = Callable[[str], Tensor]
"""Of the text between a step and the right answer: float [steps of all rollouts]."""


def assign_credit(
    rollouts: pa.Table,
    grades: pa.Table,
    scores: pa.Table | None,
    method: MethodConfig,
    *,
    max_response_tokens: int,
    alone: Tensor | None = None,
    gains: AnswerGains | None = None,
    learns: Tensor | None = None,
) -> pa.ListArray:
    """Advantages of every step of every rollout, or of every token where the PRM's rewards are per token.

    Args:
        rollouts: ROLLOUTS, whole groups, graded.
        grades: GRADES, joined by position.
        scores: STEP_SCORES, joined by position; None where the method has no PRM.
        method: which rewards become which advantage.
        max_response_tokens: the sampler's limit, for the over-length penalty.
        alone: float [rows], what `mean_logprobs_alone` gives, where a term takes it.
        gains: gives `answer_gains` of all steps, for transforms that call it.
        learns: bool [rows], which rollouts are learned from, where the sequence mask leaves out some
            (`PolicyUpdate.learns`); None: those that the method's filters keep.

    Returns:
        list<float32> [rows], one value per step or per token.

    Raises:
        DoorError: a transform, a term or a filter of the user's own failed.
    """
    rewards = None if scores is None else to_packed(scores["rewards"])
    units = to_packed(rollouts["step_ends"]) if rewards is None else rewards
    unit_rows = torch.repeat_interleave(torch.arange(units.rows), units.lengths)
    groups = torch.from_numpy(rollouts["group"].to_numpy().copy())
    parts = reward_parts(rollouts, grades, rewards, unit_rows, method, max_response_tokens, alone)
    outcome = _outcome_advantages(parts, groups, method)
    # What is brought to the scale of the batch is so over what learns: others must not shift it.
    if learns is None:
        learns = torch.zeros(units.rows, dtype=torch.bool)
        learns[rows_that_learn(rollouts, method.filters, scores)] = True
    step = None
    step_rewards = _with_own_steps(rewards, units, rollouts, grades)
    if step_rewards is None and method.transforms:
        step_rewards = torch.zeros(units.values.numel())
    if step_rewards is not None and method.step_weight > 0:
        known: dict[str, Any] = {
            "step_rows": unit_rows,
            "groups": group_numbers(rollouts),
            "outcomes": torch.from_numpy(learned_outcomes(grades).to_numpy().copy()),
            "learns": learns,
        }
        if gains is not None:
            known["answer_gains"] = lambda intro: _on_units(gains(intro), units, rollouts)
        values = transformed(step_rewards, method.transforms, known)
        step = credit.step_advantages(
            values,
            unit_rows,
            groups,
            per_step=method.return_per_step,
            to_go=method.step_return == "to_go",
            baseline=method.step_baseline,
        )
    advantages = credit.combine(outcome, step, unit_rows, method.step_weight)
    if method.whiten:
        advantages = credit.whiten(advantages, _tokens_per_unit(rollouts, units) * learns[unit_rows])
    return to_list_column(advantages.float(), units.offsets, pa.list_(pa.float32()))


@dataclass(frozen=True)
class RewardPart:
    """One reward of the rollouts."""

    values: Tensor
    """Float [N]."""
    weight: float = 1.0
    """Its share in a rollout's reward."""
    own: bool = False
    """Whether it is the configuration's own, which has a scale of its own already."""


def reward_parts(
    rollouts: pa.Table,
    grades: pa.Table,
    rewards: PackedColumn | None,
    unit_rows: Tensor,
    method: MethodConfig,
    max_response_tokens: int,
    alone: Tensor | None = None,
) -> list[RewardPart]:
    """The rewards whose weighted sum is the scalar reward of a rollout, the outcome first.

    R = outcome_weight o + own + trajectory_weight rbar + the method's terms.

    Own rewards that are per step are in the steps' advantages, or, where steps have none (`step_weight` 0),
    their sum is in R.
    """
    outcomes = torch.from_numpy(learned_outcomes(grades).to_numpy().copy())
    parts = [RewardPart(outcomes, method.outcome_weight)]
    if SUM in grades.column_names:
        parts.append(RewardPart(torch.from_numpy(grades[SUM].to_numpy().copy()), own=True))
    if STEPS in grades.column_names and method.step_weight == 0:
        own = to_packed(grades[STEPS])
        rows = torch.repeat_interleave(torch.arange(own.rows), own.lengths)
        parts.append(RewardPart(credit.trajectory_rewards(own.values, rows, own.rows, "sum"), own=True))
    if rewards is not None and method.trajectory_weight > 0:
        whole = credit.trajectory_rewards(rewards.values, unit_rows, rewards.rows, method.trajectory_reward)
        parts.append(RewardPart(whole, method.trajectory_weight))
    if method.terms:
        known = rollout_values(rollouts) | {
            "outcomes": outcomes,
            "unanswered": torch.from_numpy(grades["answer"].is_null().to_numpy().copy()),
            "mean_logprobs": row_means(rollouts["logprobs"]),
        }
        if alone is not None:
            known[ALONE] = alone
        if rewards is not None:
            known |= {"rewards": rewards.values, "step_rows": unit_rows}
        values = term_values(
            method.terms, {**known, "max_response_tokens": max_response_tokens}, outcomes.numel()
        )
        parts += [RewardPart(said, one.weight) for one, said in zip(method.terms, values, strict=True)]
    return parts


def _outcome_advantages(parts: Sequence[RewardPart], groups: Tensor, method: MethodConfig) -> Tensor:
    """Compare the rewards of rollouts within their groups: their sum, or each by itself [N]."""

    def compared(values: Tensor) -> Tensor:
        return credit.outcome_advantages(values, groups, method.outcome_advantage, method.pass_at_k)

    if not method.separate_rewards:
        return compared(total_reward(parts))
    return total_reward([part if part.own else replace(part, values=compared(part.values)) for part in parts])


def total_reward(parts: Sequence[RewardPart]) -> Tensor:
    """Weighted sum of the rewards of each rollout [N]."""
    total = parts[0].weight * parts[0].values
    for part in parts[1:]:
        total = total + part.weight * part.values.to(total.dtype)
    return total


def _with_own_steps(
    rewards: PackedColumn | None, units: PackedColumn, rollouts: pa.Table, grades: pa.Table
) -> Tensor | None:
    """Rewards of the units [S]: the PRM's and the configuration's own per step; None where there are none.

    Where the unit is a token, a step's own reward is that of its last token.
    """
    if STEPS not in grades.column_names:
        return None if rewards is None else rewards.values
    own = _on_units(to_packed(grades[STEPS]).values, units, rollouts)
    return own if rewards is None else rewards.values + own


def _on_units(values: Tensor, units: PackedColumn, rollouts: pa.Table) -> Tensor:
    """Values of all steps on the units [S]: as they are, or of tokens at each step's last one."""
    ends = to_packed(rollouts["step_ends"])
    if torch.equal(ends.offsets, units.offsets):
        return values
    starts = torch.repeat_interleave(units.offsets[:-1], ends.lengths)
    return values.new_zeros(units.values.numel()).index_add(0, starts + ends.values - 1, values)


def _tokens_per_unit(rollouts: pa.Table, units: PackedColumn) -> Tensor:
    """int64 [S]: tokens of each step, or 1 where the unit is a token."""
    ends = to_packed(rollouts["step_ends"])
    if not torch.equal(ends.offsets, units.offsets):
        return torch.ones(units.values.numel(), dtype=torch.int64)
    starts = torch.zeros_like(ends.values)
    starts[1:] = ends.values[:-1]
    first = ends.offsets[:-1][ends.lengths > 0]
    starts[first] = 0
    return ends.values - starts
