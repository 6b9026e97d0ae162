"""Predicts the outcome from the sum of the log-ratios to the reference model (PRIME)."""

from __future__ import annotations

from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.objectives.prime import outcome_logits, prime_loss
from airls_ray.prm.classes import classifier_metrics
from airls_ray.prm.objective import Actions
from airls_ray.tensors import segment_sum


class PrimeObjective:
    """PRIME's implicit PRM; "expert" are the right rollouts, "policy" the wrong ones."""

    base = "reference"
    sides = "outcome"
    weighs = "sequence"
    needs_traces = False
    needs_log_prob_form = True

    def __init__(self, config: PRMConfig) -> None:
        self._config = config

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
        return classifier_metrics(sums)


OBJECTIVE = PrimeObjective
