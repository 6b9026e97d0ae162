"""Metrics of objectives that tell two classes apart, from sums over all ranks."""

from __future__ import annotations

from collections.abc import Mapping


def accuracies(sums: Mapping[str, float]) -> dict[str, float]:
    """Share of each side's weight that is on its right side of 0, as `prm/...`."""
    return {
        "prm/expert_accuracy": sums["expert_correct"] / max(sums["expert_weight"], 1e-12),
        "prm/policy_accuracy": sums["policy_correct"] / max(sums["policy_weight"], 1e-12),
    }


def classifier_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """The accuracies, and the means of entropy and magnitude of the logit."""
    weight = max(sums["expert_weight"] + sums["policy_weight"], 1e-12)
    return accuracies(sums) | {
        "prm/entropy": sums["entropy"] / weight,
        "prm/logit_abs_mean": sums["logit_abs"] / weight,
    }
