"""Raises the mean value of correct responses over reweighted failed ones (rePIRL)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.objectives.repirl import (
    effective_sample_size,
    log_weights,
    repirl_loss,
    weight_multipliers,
)
from airls_ray.prm.classes import accuracies
from airls_ray.prm.objective import Actions, RowSums


class RepirlObjective:
    """RePIRL: importance weights of the failed rollouts are renewed before every pass."""

    base = "sampler"
    weighs = "sequence"
    needs_row_sums = True
    without_log_probs: ClassVar[dict[str, Any]] = {"repirl": {"weight": "none"}}
    without_log_probs_note = (
        "so the weights exp(phi) / pi of the failed ones are unknown: all weigh the same for all of them"
    )

    def __init__(self, config: PRMConfig) -> None:
        self._config = config
        self._factors = torch.zeros(0, dtype=torch.float64)
        self._effective = 0.0
        self._problems = 1
        self._rollouts = 0

    def prepare(self, sums: RowSums) -> None:
        """Compute the weights of all failed rollouts of the update."""
        settings = self._config.repirl
        logs = log_weights(sums.phi, sums.log_pi, sums.lengths, settings.weight, settings.weight_temperature)
        base, by_problem = sums.policy_weights, settings.weight_scope == "problem"
        groups = sums.problems if by_problem else torch.zeros_like(sums.problems)
        self._factors = weight_multipliers(logs, base, settings.max_weight, groups)
        self._rollouts = sums.rollouts
        self._problems = max(int(groups[base > 0].unique().numel()), 1)
        self._effective = sum(
            effective_sample_size(
                self._factors[groups == group],
                base[groups == group],
                sums.rollouts * float(base[groups == group].sum() / base.sum()),
            )
            for group in groups[base > 0].unique().tolist()
        )

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Difference of the mean values; the sides of a PRM batch sum to 1/2, hence the 2."""
        factors = self._factors.to(actions.f.device)[actions.sequences][actions.rows].to(actions.f.dtype)
        expert, policy = 2.0 * actions.expert_weights, 2.0 * actions.policy_weights
        loss, sums = repirl_loss(actions.f, expert, policy * factors)
        # Right side of 0, where an untrained output is: for `log_prob` that is phi = pi.
        output = (
            actions.f if self._config.parameterisation == "scalar_head" else actions.f - actions.log_base
        ).detach()
        return loss, sums | {
            "expert_weight": expert.sum(),
            "policy_weight": policy.sum(),
            "expert_correct": (expert * (output > 0)).sum(),
            "policy_correct": (policy * (output < 0)).sum(),
        }

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Mean values of both sides, accuracies against 0, effective sample size (the sum of those within
        each problem), failed rollouts, and the sets over which their weights are normalised."""
        return {
            "prm/expert_value": sums["expert_value"],
            "prm/policy_value": sums["policy_value"],
            **accuracies(sums),
            "prm/effective_sample_size": self._effective,
            "prm/failed_rollouts": float(self._rollouts),
            "prm/weight_groups": float(self._problems),
        }


OBJECTIVE = RepirlObjective
