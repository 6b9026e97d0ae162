"""PRIME's implicit PRM: the cross-entropy of outcomes, its clip and smoothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from airls_ray.objectives.prime import outcome_logits, prime_loss


def test_the_logit_is_beta_times_the_sum_of_a_rows_ratios() -> None:
    ratios, rows = torch.tensor([1.0, 2.0, -4.0]), torch.tensor([0, 0, 2])
    assert outcome_logits(ratios, rows, 3, beta=0.5).tolist() == [1.5, 0.0, -2.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy_on_outcomes(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, generator=generator, dtype=torch.float64)
    outcome = (torch.rand(20, generator=generator) < 0.4).double()
    loss, _ = prime_loss(logits, outcome / 20, (1 - outcome) / 20, label_smoothing=smoothing)
    targets = outcome * (1 - 2 * smoothing) + smoothing
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, targets))


def test_a_row_of_equal_rollouts_with_both_outcomes_counts_each() -> None:
    """A merged row may carry right and wrong weight (a grader that times out): both terms are there."""
    loss, sums = prime_loss(torch.tensor([0.0]), torch.tensor([0.25]), torch.tensor([0.75]))
    assert float(loss) == pytest.approx(0.6931472)
    assert (float(sums["expert_weight"]), float(sums["policy_weight"])) == (0.25, 0.75)


def test_a_clipped_logit_has_no_gradient() -> None:
    logits = torch.tensor([9.0, 1.0], requires_grad=True)
    loss, _ = prime_loss(logits, torch.zeros(2), torch.ones(2), logit_clip=5.0)
    gradient = torch.autograd.grad(loss, logits)[0]
    assert float(gradient[0]) == 0.0
    assert float(gradient[1]) > 0.0


def test_accuracies_are_counted_by_class() -> None:
    _, sums = prime_loss(
        torch.tensor([2.0, -1.0, -3.0]), torch.tensor([0.5, 0.2, 0.0]), torch.tensor([0.0, 0.0, 0.3])
    )
    assert float(sums["expert_correct"]) == pytest.approx(0.5)
    assert float(sums["policy_correct"]) == pytest.approx(0.3)
