"""Dual clip against its definition: by hand, against a loop in float64, and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.errors import DoorError
from airls_ray.learning.try_method import try_method
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.objectives.policy_losses import clipped, dual_clip

TOKENS = 5000
MANY = PolicyNormaliser(tokens=TOKENS, rollouts=10, max_response_tokens=1000)
CONFIG = MethodConfig(name="grpo", clip_low=0.2, clip_high=0.28)


def inputs_of(log_ratios: Tensor, advantages: Tensor) -> PolicyLossInputs:
    old = torch.full_like(log_ratios, -2.0)
    return PolicyLossInputs(
        logprobs=(old + log_ratios).requires_grad_(),
        old_logprobs=old,
        advantages=advantages,
        row_offsets=torch.tensor([0, log_ratios.numel()]),
    )


def many(seed: int = 0) -> PolicyLossInputs:
    """Ratios from about exp(-4) to exp(4), so that each bound is met by hundreds of tokens."""
    generator = torch.Generator().manual_seed(seed)
    log_ratios, advantages = torch.randn(2, TOKENS, generator=generator, dtype=torch.float64)
    return inputs_of(log_ratios, advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "bound", "value", "clip"),
    [
        (5.0, -1.0, 3.0, 3.0, True),  # the floor: -3 and not -5
        (5.0, -1.0, 6.0, 5.0, False),
        (2.5, -2.0, 3.0, 5.0, False),  # below the floor's ratio: as PPO
        (0.5, -1.0, 3.0, 0.8, True),  # PPO's own clip
        (5.0, 1.0, 3.0, -1.28, True),  # a positive advantage has no floor
        (0.5, 1.0, 3.0, -0.5, False),
    ],
)
def test_dual_clip_by_hand(ratio: float, advantage: float, bound: float, value: float, clip: bool) -> None:
    one = PolicyNormaliser(tokens=1, rollouts=1, max_response_tokens=1)
    inputs = inputs_of(torch.tensor([math.log(ratio)]), torch.tensor([advantage]))
    got, sums = dual_clip.loss(inputs, config=CONFIG, normaliser=one, bound=bound)
    assert got.item() == pytest.approx(value, rel=1e-6)
    assert sums["clip_share"].item() == float(clip)
    (gradient,) = torch.autograd.grad(got, inputs.logprobs)
    assert (gradient.item() == 0.0) == clip


def test_dual_clip_of_many_tokens_is_a_loop_over_them() -> None:
    inputs = many()
    total, without = 0.0, 0
    for new, old, advantage in zip(
        inputs.logprobs.tolist(), inputs.old_logprobs.tolist(), inputs.advantages.tolist(), strict=True
    ):
        ratio = math.exp(new - old)
        loss = max(-ratio * advantage, -min(max(ratio, 0.8), 1.28) * advantage)
        if advantage < 0:
            loss = min(loss, -3.0 * advantage)
        without += loss != -ratio * advantage
        total += loss / TOKENS
    got, sums = dual_clip.loss(inputs, config=CONFIG, normaliser=MANY)
    assert got.item() == pytest.approx(total, rel=1e-6)
    assert abs(sums["clip_share"].item() - without) <= 1


def test_dual_clips_gradient_is_that_of_finite_differences() -> None:
    inputs = many(1)
    loss, _ = dual_clip.loss(inputs, config=CONFIG, normaliser=MANY)
    (gradient,) = torch.autograd.grad(loss, inputs.logprobs)
    step = 1e-6
    for token in range(0, TOKENS, 250):
        values = []
        for shift in (step, -step):
            moved = inputs.logprobs.detach().clone()
            moved[token] += shift
            near = PolicyLossInputs(moved, inputs.old_logprobs, inputs.advantages, inputs.row_offsets)
            values.append(dual_clip.loss(near, config=CONFIG, normaliser=MANY)[0].item())
        assert gradient[token].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)


def test_a_bound_that_no_ratio_reaches_is_the_plain_clip() -> None:
    inputs = many(2)
    plain, _ = clipped.loss(inputs, config=CONFIG, normaliser=MANY)
    far, _ = dual_clip.loss(inputs, config=CONFIG, normaliser=MANY, bound=1e9)
    assert far.item() == pytest.approx(plain.item(), rel=1e-12)
    near, _ = dual_clip.loss(inputs, config=CONFIG, normaliser=MANY)
    assert near.item() < plain.item()


def test_a_bound_within_the_clip_is_refused_before_a_run() -> None:
    named = {"name": "dual_clip", "options": {"bound": 1.0}}
    config = MethodConfig.model_validate({"name": "grpo", "policy_loss": named})
    with pytest.raises(DoorError, match=r"method\.policy_loss: .* bound of dual_clip must be above 1"):
        try_method(config, PRMConfig(), 8, reference=False)
