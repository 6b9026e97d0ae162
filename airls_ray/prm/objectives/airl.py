"""Tells steps (or tokens) of traces from those of the policy (AIRL-S)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.objectives.airl import DiscriminatorInputs, discriminator_loss, step_logits
from airls_ray.prm.classes import classifier_metrics
from airls_ray.prm.objective import Actions


class AIRLObjective:
    """The discriminator of AIRL over actions (Fu et al. 2018; AIRL-S)."""

    without_log_probs: ClassVar[dict[str, Any]] = {"discriminator": "gail"}
    without_log_probs_note = (
        "so the logit of the discriminator is f alone in place of f - log pi for all of them"
    )

    def __init__(self, config: PRMConfig) -> None:
        self._config = config

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
        return classifier_metrics(sums) | {"prm/expert_share": sums["expert_steps"] / actions}


OBJECTIVE = AIRLObjective
