"""PRL's process reward against its formula: by hand, and by a loop over responses in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.data.check_method import own_names
from airls_ray.errors import DoorError
from airls_ray.learning.try_method import try_method
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.objectives.policy_losses import clipped, prl

CONFIG = MethodConfig(name="grpo", kl_coefficient=0.5)


def test_the_sum_starts_at_the_end_of_the_tokens_step() -> None:
    """Steps of two tokens: a response of five (the last step is short), none, one of two."""
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 5.0, 7.0])
    got = prl.rest_at_step_ends(values, torch.tensor([0, 5, 5, 7]), 2)
    assert got.tolist() == [30.0, 30.0, 24.0, 24.0, 16.0, 7.0, 7.0]
    assert prl.rest_at_step_ends(values, torch.tensor([0, 5, 5, 7]), 100).tolist() == [16.0] * 5 + [7.0] * 2
    assert prl.rest_at_step_ends(values[:0], torch.tensor([0]), 2).tolist() == []


def many() -> tuple[PolicyLossInputs, list[int]]:
    """40 responses of 0 to 300 tokens, whose policy has left the reference a little."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 301, (40,), generator=generator)
    tokens = int(lengths.sum())
    old = -torch.rand(tokens, generator=generator, dtype=torch.float64) - 1.0
    noise = torch.randn(3, tokens, generator=generator, dtype=torch.float64)
    inputs = PolicyLossInputs(
        logprobs=(old + 0.2 * noise[0]).requires_grad_(),
        old_logprobs=old,
        advantages=noise[1],
        row_offsets=torch.tensor([0, *lengths.cumsum(0).tolist()]),
        reference_logprobs=old + 0.1 * noise[2],
    )
    return inputs, lengths.tolist()


@pytest.mark.parametrize("step_tokens", [1, 64])
def test_the_loss_is_ppos_with_the_process_reward_in_the_advantage(step_tokens: int) -> None:
    inputs, lengths = many()
    assert inputs.reference_logprobs is not None
    old, reference = inputs.old_logprobs.tolist(), inputs.reference_logprobs.tolist()
    new, advantages = inputs.logprobs.tolist(), inputs.advantages.tolist()
    total, start = 0.0, 0
    for length in lengths:
        for place in range(length):
            end = min((place // step_tokens + 1) * step_tokens, length) - 1
            later = sum(old[start + j] - reference[start + j] for j in range(end, length))
            advantage = advantages[start + place] - 0.5 * later
            ratio = math.exp(new[start + place] - old[start + place])
            total -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        start += length
    normaliser = PolicyNormaliser(tokens=sum(lengths), rollouts=40, max_response_tokens=300)
    got, sums = prl.loss(inputs, config=CONFIG, normaliser=normaliser, step_tokens=step_tokens)
    assert got.item() == pytest.approx(total / sum(lengths), rel=1e-6)
    assert sums["reference_kl"].item() > 0.0  # it is measured, though not in the loss


def test_a_policy_that_is_the_reference_has_no_process_reward() -> None:
    inputs, lengths = many()
    normaliser = PolicyNormaliser(tokens=sum(lengths), rollouts=40, max_response_tokens=300)
    same = replace(inputs, reference_logprobs=inputs.old_logprobs)
    plain, _ = clipped.loss(
        replace(inputs, reference_logprobs=None), config=MethodConfig(name="grpo"), normaliser=normaliser
    )
    got, _ = prl.loss(same, config=CONFIG, normaliser=normaliser)
    assert torch.equal(
        torch.autograd.grad(got, inputs.logprobs)[0], torch.autograd.grad(plain, inputs.logprobs)[0]
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"policy_loss": "prl"}, "from method.kl_coefficient, which is 0; set it"),
        (
            {"policy_loss": {"name": "prl", "options": {"step_tokens": 0}}, "kl_coefficient": 0.1},
            "step_tokens of prl must be at least 1, but is 0",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_said_before_a_run(fields: dict[str, object], said: str) -> None:
    config = MethodConfig.model_validate({"name": "grpo", **fields})
    assert own_names(config) == ["prl"]
    with pytest.raises(DoorError, match=said):
        try_method(config, PRMConfig(), 8, reference=False)
    good = MethodConfig(name="grpo", policy_loss="prl", kl_coefficient=0.005)
    try_method(good, PRMConfig(), 8, reference=True)
