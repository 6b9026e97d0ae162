"""The objectives that a PRM can learn by, on the values of its actions.

airl     tell steps (or tokens) of traces from those of the policy        (AIRL-S)
repirl   raise the mean value of correct responses over reweighted failed ones   (rePIRL)
prime    predict the outcome from the sum of the log-ratios               (PRIME)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.objectives.airl import DiscriminatorInputs, discriminator_loss, step_logits
from airls_ray.objectives.prime import outcome_logits, prime_loss
from airls_ray.objectives.repirl import (
    effective_sample_size,
    log_weights,
    repirl_loss,
    weight_multipliers,
)
from airls_ray.tensors import segment_sum


@dataclass(frozen=True)
class Actions:
    """A micro-batch of B sequences with A actions (steps or tokens)."""

    f: Tensor
    """[A], with gradient."""
    log_base: Tensor
    """[A]: log-probability of the action under the policy (`prime`: under the reference model)."""
    rows: Tensor
    """int64 [A]: sequence of each action within the micro-batch."""
    sequences: Tensor
    """int64 [B]: position of each sequence in the PRM batch."""
    expert_weights: Tensor
    """[A]: weight on the expert side; both sides sum to 1 over the whole update."""
    policy_weights: Tensor
    """[A]: weight on the policy side."""


@dataclass(frozen=True)
class RowSums:
    """Of every sequence of the PRM batch [N]; those without weight are 0."""

    phi: Tensor
    log_pi: Tensor
    """Under the policy that sampled the sequence."""
    lengths: Tensor
    policy_weights: Tensor
    problems: Tensor
    """int64: problem of each sequence."""
    rollouts: int
    """Rollouts on the policy side, equal ones counted."""


class PRMObjective(Protocol):
    """What an objective adds to the frame of `update_prm`."""

    needs_row_sums: bool
    """Whether `prepare` wants sums over whole sequences before each pass."""

    def prepare(self, sums: RowSums) -> None:
        """Take what the pass before saw."""
        ...

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the micro-batch's share of the loss, and metrics as sums."""
        ...

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Turn the sums over all ranks into `prm/...`."""
        ...


class AIRLObjective:
    """The discriminator of AIRL over actions (Fu et al. 2018; AIRL-S)."""

    needs_row_sums = False

    def __init__(self, config: PRMConfig) -> None:
        self._config = config

    def prepare(self, sums: RowSums) -> None:
        """Nothing is needed."""

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the logits f - l (`gail`: f); an action of both sides counts once on each."""
        gail = self._config.discriminator == "gail"
        logits = actions.f if gail else step_logits(actions.f, actions.log_base)
        on_expert, on_policy = actions.expert_weights > 0, actions.policy_weights > 0
        ones = torch.ones_like(actions.expert_weights)
        inputs = DiscriminatorInputs(
            logits_expert_is_high=torch.cat([logits[on_expert], logits[on_policy]]),
            labels_expert_is_one=torch.cat([ones[on_expert], 0 * ones[on_policy]]),
            weights=torch.cat([actions.expert_weights[on_expert], actions.policy_weights[on_policy]]),
        )
        return discriminator_loss(
            inputs, label_smoothing=self._config.label_smoothing, logit_clip=self._config.logit_clip
        )

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Class accuracies, entropy of D, magnitude of the logits, share of expert actions."""
        actions = max(sums["expert_steps"] + sums["policy_steps"], 1.0)
        return _classifier_metrics(sums) | {"prm/expert_share": sums["expert_steps"] / actions}


class RepirlObjective:
    """RePIRL: importance weights of the failed rollouts are renewed before every pass."""

    def __init__(self, config: PRMConfig) -> None:
        self._config = config
        self.needs_row_sums = True
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
            **_accuracies(sums),
            "prm/effective_sample_size": self._effective,
            "prm/failed_rollouts": float(self._rollouts),
            "prm/weight_groups": float(self._problems),
        }


class PrimeObjective:
    """PRIME's implicit PRM; "expert" are the right rollouts, "policy" the wrong ones."""

    needs_row_sums = False

    def __init__(self, config: PRMConfig) -> None:
        self._config = config

    def prepare(self, sums: RowSums) -> None:
        """Nothing is needed."""

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the outcomes; the weights of a sequence's actions sum to the sequence's."""
        size = actions.sequences.numel()
        logits = outcome_logits(actions.f - actions.log_base, actions.rows, size, self._config.prime.beta)
        right, wrong = (
            segment_sum(weights, actions.rows, size)
            for weights in (actions.expert_weights, actions.policy_weights)
        )
        return prime_loss(
            logits,
            right,
            wrong,
            label_smoothing=self._config.label_smoothing,
            logit_clip=self._config.logit_clip,
        )

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Accuracies on right and wrong rollouts, entropy and magnitude of the outcome's logit."""
        return _classifier_metrics(sums)


def make_objective(name: str, config: PRMConfig) -> PRMObjective:
    """Return the objective of a learning PRM.

    Raises:
        ValueError: the name is not that of a learning objective.
    """
    if name == "airl":
        return AIRLObjective(config)
    if name == "repirl":
        return RepirlObjective(config)
    if name == "prime":
        return PrimeObjective(config)
    raise ValueError(f"no PRM learns by the objective {name!r}")


def _accuracies(sums: dict[str, float]) -> dict[str, float]:
    return {
        "prm/expert_accuracy": sums["expert_correct"] / max(sums["expert_weight"], 1e-12),
        "prm/policy_accuracy": sums["policy_correct"] / max(sums["policy_weight"], 1e-12),
    }


def _classifier_metrics(sums: dict[str, float]) -> dict[str, float]:
    weight = max(sums["expert_weight"] + sums["policy_weight"], 1e-12)
    return _accuracies(sums) | {
        "prm/entropy": sums["entropy"] / weight,
        "prm/logit_abs_mean": sums["logit_abs"] / weight,
    }
