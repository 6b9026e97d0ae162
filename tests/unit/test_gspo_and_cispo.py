"""GSPO and CISPO against their equations: by hand, and against explicit loops in float64."""

from __future__ import annotations

import math
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import MethodConfig
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.objectives.policy_losses import cispo, clipped, gspo

LENGTHS = [3, 1, 0, 5, 2]
NORMALISER = PolicyNormaliser(tokens=sum(LENGTHS), rollouts=4, max_response_tokens=8)
DOUBLE = torch.float64


def method(**fields: object) -> MethodConfig:
    return MethodConfig.model_validate({"name": "grpo", **fields})


def offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def random_inputs(seed: int, spread: float = 0.3, by_response: bool = False) -> PolicyLossInputs:
    generator = torch.Generator().manual_seed(seed)

    def noise(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=DOUBLE)

    tokens = sum(LENGTHS)
    logprobs = noise(tokens) - 2.0
    advantages = (
        noise(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)) if by_response else noise(tokens)
    )
    return PolicyLossInputs(
        logprobs=logprobs.clone().requires_grad_(),
        old_logprobs=logprobs + spread * noise(tokens),
        advantages=advantages,
        row_offsets=offsets(LENGTHS),
    )


def gradient_of(loss: Tensor, inputs: PolicyLossInputs) -> Tensor:
    return torch.autograd.grad(loss, inputs.logprobs)[0]


def two_responses() -> PolicyLossInputs:
    """Log-ratios 0.1 and 0.5 (a response of advantage 1), and -0.3 (one of advantage -2)."""
    log_ratios = torch.tensor([0.1, 0.5, -0.3], dtype=DOUBLE)
    old = torch.tensor([-1.0, -2.0, -0.5], dtype=DOUBLE)
    return PolicyLossInputs(
        logprobs=(old + log_ratios).requires_grad_(),
        old_logprobs=old,
        advantages=torch.tensor([1.0, 1.0, -2.0], dtype=DOUBLE),
        row_offsets=torch.tensor([0, 2, 3]),
    )


TWO = PolicyNormaliser(tokens=3, rollouts=2, max_response_tokens=4)


# ----------------------------------------------------------------------------------------- GSPO
def test_gspo_by_hand() -> None:
    """s = exp(0.3) = 1.350 and exp(-0.3) = 0.741; bounds of 0.8 and 1.4 leave the first, clip the other."""
    inputs = two_responses()
    config = method(aggregation="sequence_mean", clip_low=0.2, clip_high=0.4)
    value, sums = gspo.loss(inputs, config=config, normaliser=TWO)
    assert value.item() == pytest.approx(-(math.exp(0.3) * 1 + 0.8 * -2) / 2, rel=1e-6)
    wanted = [
        -math.exp(0.3) / 4,
        -math.exp(0.3) / 4,
        0.0,
    ]  # d s / d log pi_t = s / 2 tokens, over 2 responses
    assert gradient_of(value, inputs).tolist() == pytest.approx(wanted, rel=1e-6)
    assert sums["ratio"].item() == pytest.approx(2 * math.exp(0.3) + math.exp(-0.3))
    assert (sums["tokens"].item(), sums["clip_share"].item()) == (3.0, 1.0)


def equation_5(inputs: PolicyLossInputs, low: float, high: float) -> tuple[Tensor, int]:
    """Minus the objective as the paper writes it, a loop over responses, and how many are clipped."""
    total, cut = torch.zeros((), dtype=DOUBLE), 0
    for start, stop in pairwise(inputs.row_offsets.tolist()):
        if start == stop:
            continue
        s = (inputs.logprobs[start:stop] - inputs.old_logprobs[start:stop]).mean().exp()
        advantage = float(inputs.advantages[start])
        bounded = s.clamp(1 - low, 1 + high)
        cut += bool(bounded * advantage < s * advantage)
        total = total - torch.minimum(s * advantage, bounded * advantage)
    return total / 4, cut


def test_gspo_has_value_and_gradient_of_equation_5_where_a_response_has_one_advantage() -> None:
    low, high = 0.05, 0.1
    config = method(aggregation="sequence_mean", clip_low=low, clip_high=high)
    seen = set()
    for seed in range(20):
        inputs = random_inputs(seed, by_response=True)
        value, _ = gspo.loss(inputs, config=config, normaliser=NORMALISER)
        wanted, cut = equation_5(inputs, low, high)
        seen.add(cut)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
        torch.testing.assert_close(
            gradient_of(value, inputs), gradient_of(wanted, inputs), rtol=1e-6, atol=1e-9
        )
    assert {0, 1} <= seen  # both branches of the clip were compared


def test_gspo_leaves_each_token_its_own_advantage() -> None:
    inputs = random_inputs(3)
    config = method(aggregation="sequence_mean", clip_low=0.9, clip_high=9.0)  # nothing is clipped
    value, _ = gspo.loss(inputs, config=config, normaliser=NORMALISER)
    wanted = torch.zeros_like(inputs.advantages)
    for start, stop in pairwise(inputs.row_offsets.tolist()):
        part = slice(start, stop)
        s = (inputs.logprobs[part] - inputs.old_logprobs[part]).mean().exp().detach()
        wanted[part] = -s * inputs.advantages[part] / max(stop - start, 1) / 4
    torch.testing.assert_close(gradient_of(value, inputs), wanted, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------------------------------- CISPO
def test_cispo_by_hand() -> None:
    """Weights exp(0.1), 1.4 (not exp(0.5)) and 0.8 (not exp(-0.3)), of log pi -0.9, -1.5 and -0.8."""
    inputs = two_responses()
    value, sums = cispo.loss(inputs, config=method(clip_low=0.2, clip_high=0.4), normaliser=TWO)
    wanted = -(math.exp(0.1) * -0.9 + 1.4 * -1.5 + 0.8 * -2 * -0.8) / 3
    assert value.item() == pytest.approx(wanted, rel=1e-6)
    assert (sums["tokens"].item(), sums["clip_share"].item()) == (3.0, 2.0)
    assert not sums["ratio"].requires_grad


def test_cispo_s_gradient_is_that_of_the_weighted_log_likelihood_for_every_token() -> None:
    low, high = 0.2, 0.3
    for seed in range(10):
        inputs = random_inputs(seed)
        config = method(clip_low=low, clip_high=high)
        value, sums = cispo.loss(inputs, config=config, normaliser=NORMALISER)
        assert 0 < sums["clip_share"].item() < sum(LENGTHS)
        wanted = [
            -min(max(math.exp(new - old), 1 - low), 1 + high) * advantage / sum(LENGTHS)
            for new, old, advantage in zip(
                inputs.logprobs.tolist(),
                inputs.old_logprobs.tolist(),
                inputs.advantages.tolist(),
                strict=True,
            )
        ]
        assert gradient_of(value, inputs).tolist() == pytest.approx(wanted, rel=1e-6)


# ----------------------------------------------------------------------------------------- both
@pytest.mark.parametrize("module", [gspo, cispo], ids=["gspo", "cispo"])
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_before_the_first_update_all_losses_have_the_gradient_of_the_surrogate(
    module: ModuleType, aggregation: str
) -> None:
    """Old and new policy are the same: all ratios are 1."""
    inputs, config = random_inputs(1, spread=0.0), method(aggregation=aggregation)
    wanted = gradient_of(clipped.loss(inputs, config=config, normaliser=NORMALISER)[0], inputs)
    got = gradient_of(module.loss(inputs, config=config, normaliser=NORMALISER)[0], inputs)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("module", [gspo, cispo], ids=["gspo", "cispo"])
def test_microbatches_of_whole_responses_add_up(module: ModuleType) -> None:
    inputs, config = random_inputs(2), method()
    whole, sums = module.loss(inputs, config=config, normaliser=NORMALISER)
    parts = []
    for first, last in ((0, 2), (2, 2), (2, 5)):
        a, b = int(inputs.row_offsets[first]), int(inputs.row_offsets[last])
        cut = PolicyLossInputs(
            inputs.logprobs[a:b],
            inputs.old_logprobs[a:b],
            inputs.advantages[a:b],
            inputs.row_offsets[first : last + 1] - a,
        )
        parts.append(module.loss(cut, config=config, normaliser=NORMALISER))
    torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).sum(), whole)
    for name, value in sums.items():
        torch.testing.assert_close(torch.stack([found[name] for _, found in parts]).sum(), value)


@pytest.mark.parametrize("module", [gspo, cispo], ids=["gspo", "cispo"])
@pytest.mark.parametrize("gap", [300.0, -300.0])
def test_an_extreme_log_ratio_stays_finite(module: ModuleType, gap: float) -> None:
    inputs = PolicyLossInputs(
        torch.tensor([gap], requires_grad=True), torch.zeros(1), -torch.ones(1), torch.tensor([0, 1])
    )
    value, _ = module.loss(inputs, config=method(), normaliser=PolicyNormaliser(1, 1, 1))
    assert bool(value.isfinite()) and bool(gradient_of(value, inputs).isfinite().all())
