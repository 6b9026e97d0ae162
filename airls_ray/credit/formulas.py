"""From rewards of rollouts and steps to advantages: pure functions on tensors.

N rollouts with S steps in all; groups are any integers. Computed in float64 and returned in the
type of the input, so that the result does not depend on the order of rollouts in a group.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from airls_ray.credit.pass_at_k import pass_at_k_advantages
from airls_ray.tensors.segments import segment_mean, segment_sum

STD_EPSILON = 1e-6
"""Added to a group's standard deviation."""


OutcomeAdvantage = Literal["grpo", "dr_grpo", "rloo", "pass_at_k", "none"]
"""How a rollout's reward becomes an advantage; see `outcome_advantages`."""


def outcome_advantages(outcomes: Tensor, groups: Tensor, how: OutcomeAdvantage, k: int = 4) -> Tensor:
    """Compare each outcome with those of its group.

    `grpo` (arXiv 2402.03300): (o - mean) / (std + 1e-6), std with Bessel's correction as in TRL and
    verl. `dr_grpo` (2503.20783): o - mean. `rloo` (2402.14740): o - mean of the others. A group whose
    outcomes are all equal, or that has one rollout only, gets exactly 0. `pass_at_k` (2508.10751): see
    `pass_at_k_advantages`. `none` (REINFORCE++, 2501.03262, behind which `whiten` comes): o as it is.

    Args:
        outcomes: float [N], in [0, 1].
        groups: int64 [N].
        how: see above.
        k: of `pass_at_k`.

    Returns:
        float [N].

    Raises:
        ValueError: an outcome is not finite (a rollout that was not graded), or `how` is unknown.
    """
    if how not in get_args(OutcomeAdvantage):
        raise ValueError(f"how must be one of {get_args(OutcomeAdvantage)}, but is {how!r}")
    _check_finite(outcomes, "outcome of rollout")
    if how == "none":
        return outcomes
    if how == "pass_at_k":
        return pass_at_k_advantages(outcomes, groups, k)
    centred, std, count = _centred(outcomes, groups)
    if how == "grpo":
        centred = centred / (std + STD_EPSILON)
    elif how == "rloo":  # o - (sum - o) / (G - 1) = (o - mean) * G / (G - 1)
        centred = centred * count / (count - 1).clamp(min=1)
    return centred.to(outcomes.dtype)


def step_advantages(
    rewards: Tensor,
    step_rows: Tensor,
    groups_of_rows: Tensor,
    per_step: bool,
    *,
    to_go: bool = True,
    baseline: Literal["standardise", "leave_one_out", "none"] = "standardise",
) -> Tensor:
    """Take a baseline from step rewards, then sum from each step to the end of its rollout.

    Args:
        rewards: float [S]: of steps, or of tokens.
        step_rows: int64 [S], rollout of each step, not decreasing.
        groups_of_rows: int64 [N].
        per_step: divide each sum by the number of steps summed, so that length cannot pay.
        to_go: false leaves each step its own reward after the baseline.
        baseline: `standardise` by mean and deviation of all steps of the group; `leave_one_out` (PRIME,
            arXiv 2502.01456, eq. 5): minus the mean over the other rollouts of their mean step reward,
            exactly 0 where there is no other one. `none`: the rewards as they are.

    Returns:
        float [S]; with `standardise` 0 in a group whose step rewards are all equal.

    Raises:
        ValueError: a reward is not finite, or the steps of a rollout are not consecutive.
    """
    _check_finite(rewards, "reward of step")
    if bool((step_rows.diff() < 0).any()):
        raise ValueError("step_rows must not decrease: the steps of a rollout are consecutive")
    if baseline == "leave_one_out":
        relative = _leave_one_out(rewards.double(), step_rows, groups_of_rows)
    elif baseline == "none":
        relative = rewards.double()
    else:
        centred, std, _ = _centred(rewards, groups_of_rows[step_rows])
        relative = centred / (std + STD_EPSILON)
    if not to_go:
        return relative.to(rewards.dtype)
    rows = groups_of_rows.numel()
    ends = torch.bincount(step_rows, minlength=rows).cumsum(0)[step_rows]
    running = relative.cumsum(0)
    returns = running[ends - 1] - running + relative
    if per_step:
        returns = returns / (ends - torch.arange(rewards.numel(), device=rewards.device))
    return returns.to(rewards.dtype)


def trajectory_rewards(
    rewards: Tensor, step_rows: Tensor, rows: int, how: Literal["mean", "sum", "min", "last"]
) -> Tensor:
    """Reduce step (or token) rewards [S] to one number a rollout, float [N]; 0 without steps.

    Raises:
        ValueError: `how` is unknown.
    """
    if how == "mean":
        return segment_mean(rewards, step_rows, rows)
    if how == "sum":
        return segment_sum(rewards, step_rows, rows)
    counts = torch.bincount(step_rows, minlength=rows)
    result = torch.zeros(rows, dtype=rewards.dtype, device=rewards.device)
    if how == "min":
        return result.scatter_reduce(0, step_rows, rewards, "amin", include_self=False)
    if how == "last":
        some = counts > 0
        result[some] = rewards[counts.cumsum(0)[some] - 1]
        return result
    raise ValueError(f"how must be mean, sum, min or last, but is {how!r}")


def whiten(advantages: Tensor, weights: Tensor) -> Tensor:
    """Bring values [S] to weighted mean 0 and deviation 1; all 0 where they are equal.

    Args:
        advantages: float [S].
        weights: [S], tokens that each value stands for; values of weight 0 do not count.
    """
    exact, weight = advantages.double(), weights.double()
    total = weight.sum().clamp(min=1.0)
    centred = exact - (weight * exact).sum() / total
    std = ((weight * centred.square()).sum() / (total - 1).clamp(min=1.0)).sqrt()
    return (centred / (std + STD_EPSILON)).to(advantages.dtype)


def combine(outcome: Tensor, step: Tensor | None, step_rows: Tensor, step_weight: float) -> Tensor:
    """Return (1 - step_weight) * outcome of the step's rollout + step_weight * step.

    Args:
        outcome: [N], normalised on its own.
        step: [S], normalised on its own, or None where no PRM gives rewards.
        step_rows: int64 [S].
        step_weight: lambda in [0, 1].

    Returns:
        [S].

    Raises:
        ValueError: the weight is above 0 but there are no step advantages.
    """
    spread = outcome[step_rows]
    if step_weight == 0:
        return spread
    if step is None:
        raise ValueError(f"method.step_weight is {step_weight}, which needs step rewards, but none are given")
    return (1.0 - step_weight) * spread + step_weight * step


def steps_to_tokens(values: Tensor, step_index: Tensor) -> Tensor:
    """Give every response token the value of its step: [S], int64 [R] -> [R]."""
    return values[step_index]


def _leave_one_out(rewards: Tensor, step_rows: Tensor, groups_of_rows: Tensor) -> Tensor:
    """Reward less the mean over the other rollouts of the group of their mean reward: float64 [S]."""
    rows = groups_of_rows.numel()
    means = segment_mean(rewards, step_rows, rows)
    has_steps = (torch.bincount(step_rows, minlength=rows) > 0).double()
    ids, group = torch.unique(groups_of_rows, return_inverse=True)
    totals = segment_sum(means * has_steps, group, ids.numel())[group]
    others = segment_sum(has_steps, group, ids.numel())[group] - has_steps
    baseline = (totals - means) / others.clamp(min=1.0)
    relative = rewards - baseline[step_rows]
    return torch.where(others[step_rows] > 0, relative, torch.zeros_like(relative))


def _centred(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Deviation from the group's mean, the group's unbiased std, and its size, each float64 [N]."""
    ids, group = torch.unique(groups, return_inverse=True)
    exact, size = values.double(), ids.numel()
    count = torch.bincount(group, minlength=size).double()
    centred = exact - segment_mean(exact, group, size)[group]
    lowest = torch.full((size,), torch.inf, dtype=torch.float64, device=values.device)
    lowest = lowest.scatter_reduce(0, group, exact, "amin")
    constant = segment_sum((exact != lowest[group]).double(), group, size) == 0
    # The rounding of the mean must not become an advantage of +-1 in a group without variance.
    centred = torch.where(constant[group], torch.zeros_like(centred), centred)
    variance = segment_sum(centred.square(), group, size) / (count - 1).clamp(min=1)
    return centred, variance.sqrt()[group], count[group]


def _check_finite(values: Tensor, what: str) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        index = int((~finite).nonzero()[0, 0])
        raise ValueError(f"the {what} {index} is {float(values[index])}, but must be finite")
