"""What a loss of labelled steps gets, and what is measured beside it. S counts steps.

Sign convention: a high logit means "good", a label of 1 means good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from airls_ray.config.prm_sections import PRMConfig

RESERVED = (
    *("weight", "correct", "label", "logit_abs"),  # sums of `measured_sums`
    *("loss", "accuracy", "label_mean", "logit_abs_mean", "gradient_norm", "tokens", "text_loss"),
    "skipped_updates",
    *("label_auroc", "step_auroc", "trace_auroc"),
    *("label_auroc_within", "step_auroc_within", "trace_auroc_within"),
)
"""Names that a loss's own sums may not have, since their metrics would be taken for others."""


@dataclass(frozen=True)
class StepLossInputs:
    """One micro-batch of S steps, which lie solution by solution in their order; solutions are whole."""

    logits: Tensor
    """[S], with gradient: the PRM's output at the step's last token."""
    labels: Tensor
    """[S], float in [0, 1]; 0 where there is none."""
    weights: Tensor
    """[S], float: 0 for a step without a label, 1 for one with."""
    step_rows: Tensor
    """int64 [S]: solution of each step within the micro-batch."""
    positions: Tensor
    """int64 [S]: place of each step in its solution, from 0."""
    outcome_logits: Tensor | None = None
    """[S], with gradient: the second output of a head that has one (`prm.outcome_head`)."""

    @classmethod
    def of(
        cls,
        logits: Tensor,
        labels: Tensor,
        step_rows: Tensor,
        positions: Tensor,
        outcome_logits: Tensor | None = None,
    ) -> StepLossInputs:
        """Make them of labels that are nan where there is none."""
        used = ~labels.isnan()
        weights = used.to(logits.dtype)
        return cls(logits, labels.where(used, weights), weights, step_rows, positions, outcome_logits)


@dataclass(frozen=True)
class StepNormaliser:
    """Counts over all micro-batches and ranks of an update: with them as divisors its shares add up."""

    steps: int
    """Steps with a label, at least 1: the loss becomes a mean over them."""
    rollouts: int
    """Solutions with a label, at least 1."""


@dataclass(frozen=True)
class Solutions:
    """All U labelled solutions of an update, over its micro-batches and ranks, whose problems are whole.

    A loss over pairs takes its own solutions with gradient from the micro-batch, and the others from here.
    The gradient of a pair is then whole when both of its solutions have had their turn.
    """

    sums: Tensor
    """float64 [U], without gradient: sum of the logits of a solution's steps, before the update."""
    labels: Tensor
    """float64 [U]: mean over a solution's labelled steps, as the outcome is at the last one."""
    problems: Tensor
    """int64 [U]: a number of its problem, not below 0."""
    own: Tensor
    """int64 [B]: place among them of each solution of the micro-batch; -1 for one without a label."""
    lasts: Tensor
    """float64 [U], without gradient: logit of a solution's last step, before the update."""
    agreeing: Tensor
    """float64 [U]: steps of a solution whose logit is above 0 for a label above 1/2, below 0 for another."""


def known_to(
    inputs: StepLossInputs, normaliser: StepNormaliser, config: PRMConfig, solutions: Solutions | None = None
) -> dict[str, Any]:
    """Return what a step loss may take, by name: the fields of both, the section `prm` and the solutions.

    `solutions` may be None for a loss that does not take them.
    """
    return {**vars(inputs), "normaliser": normaliser, "config": config, "solutions": solutions}


def measured_sums(inputs: StepLossInputs) -> dict[str, Tensor]:
    """Return detached sums over the labelled steps, to be divided by `weight`.

    `weight` itself, `correct` (logit and label are on the same side of 0 and 1/2), `label` and `logit_abs`.
    """
    logits, labels, weights = inputs.logits.detach(), inputs.labels, inputs.weights
    return {
        "weight": weights.sum(),
        "correct": (weights * ((logits > 0) == (labels > 0.5))).sum(),
        "label": (weights * labels).sum(),
        "logit_abs": (weights * logits.abs()).sum(),
    }
