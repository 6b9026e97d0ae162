"""The policy loss against a float64 reference in explicit loops, and its parts by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import MethodConfig
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser, k3, near_rollouts
from airls_ray.objectives.policy_losses.clipped import loss as policy_loss

LENGTHS = [3, 1, 5, 2]
NORMALISER = PolicyNormaliser(tokens=sum(LENGTHS), rollouts=len(LENGTHS), max_response_tokens=8)
EVERYTHING = {
    "clip_low": 0.1,
    "clip_high": 0.3,
    "kl_coefficient": 0.05,
    "entropy_coefficient": 0.02,
    "importance_cap": 1.1,
}


def method(**fields: object) -> MethodConfig:
    return MethodConfig.model_validate({"name": "grpo", **fields})


def offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def random_inputs(seed: int = 0, dtype: torch.dtype = torch.float64) -> PolicyLossInputs:
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(sum(LENGTHS), generator=generator, dtype=dtype)

    logprobs = noise(1.0) - 2.0
    return PolicyLossInputs(
        logprobs=logprobs.clone().requires_grad_(),
        old_logprobs=logprobs + noise(0.3),
        advantages=noise(1.0),
        row_offsets=offsets(LENGTHS),
        reference_logprobs=logprobs + noise(0.5),
        entropy=noise(1.0).abs().requires_grad_(),
        sampler_logprobs=logprobs + noise(0.2),
    )


def reference_loss(inputs: PolicyLossInputs, config: MethodConfig) -> float:
    """The whole update in Python floats: a loop over rollouts and one over tokens."""
    values = {
        name: getattr(inputs, name).detach().double().tolist()
        for name in ("logprobs", "old_logprobs", "advantages", "reference_logprobs", "entropy")
    }
    assert inputs.sampler_logprobs is not None
    sampler = inputs.sampler_logprobs.tolist()
    bounds, total = inputs.row_offsets.tolist(), 0.0
    for start, stop in pairwise(bounds):
        losses = []
        for r in range(start, stop):
            new, old, advantage = (values[n][r] for n in ("logprobs", "old_logprobs", "advantages"))
            ratio = math.exp(min(max(new - old, -20), 20))
            bounded = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
            weight = min(math.exp(old - sampler[r]), config.importance_cap) if config.importance_cap else 1.0
            loss = -weight * min(ratio * advantage, bounded * advantage)
            d = values["reference_logprobs"][r] - new
            loss += config.kl_coefficient * (math.exp(d) - d - 1)
            losses.append(loss - config.entropy_coefficient * values["entropy"][r])
        if config.aggregation == "sequence_mean":
            total += sum(losses) / len(losses) / len(LENGTHS)
        elif config.aggregation == "token_mean":
            total += sum(losses) / sum(LENGTHS)
        else:
            total += sum(losses) / (len(LENGTHS) * 8)
    return total


def split(inputs: PolicyLossInputs, first: int, last: int) -> PolicyLossInputs:
    """Rollouts first to last (exclusive) as a micro-batch of their own."""
    a, b = int(inputs.row_offsets[first]), int(inputs.row_offsets[last])
    tokens = ("logprobs", "old_logprobs", "advantages", "reference_logprobs", "entropy", "sampler_logprobs")
    cut = {name: getattr(inputs, name)[a:b] for name in tokens}
    return replace(inputs, **cut, row_offsets=inputs.row_offsets[first : last + 1] - a)


AGGREGATIONS = pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])


@AGGREGATIONS
@pytest.mark.parametrize("cap", [0.0, 1.1])
def test_the_loss_equals_a_float64_reference(aggregation: str, cap: float) -> None:
    config = method(**{**EVERYTHING, "importance_cap": cap}, aggregation=aggregation)
    for seed in range(20):
        inputs = random_inputs(seed)
        loss, _ = policy_loss(inputs, config=config, normaliser=NORMALISER)
        assert loss.item() == pytest.approx(reference_loss(inputs, config), rel=1e-6)
        single, _ = policy_loss(random_inputs(seed, torch.float32), config=config, normaliser=NORMALISER)
        assert single.dtype == torch.float32


@AGGREGATIONS
def test_microbatches_add_up_to_the_loss_and_gradient_of_the_update(aggregation: str) -> None:
    config = method(**EVERYTHING, aggregation=aggregation)
    inputs = random_inputs()
    whole, whole_sums = policy_loss(inputs, config=config, normaliser=NORMALISER)
    wanted = torch.autograd.grad(whole, [inputs.logprobs, inputs.entropy])
    parts = [
        policy_loss(split(inputs, a, b), config=config, normaliser=NORMALISER)
        for a, b in [(0, 1), (1, 3), (3, 3), (3, 4)]
    ]
    loss = torch.stack([part for part, _ in parts]).sum()
    got = torch.autograd.grad(loss, [inputs.logprobs, inputs.entropy])
    torch.testing.assert_close(loss, whole)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    for name, value in whole_sums.items():
        torch.testing.assert_close(torch.stack([sums[name] for _, sums in parts]).sum(), value)


def one_token(logprob: float, old: float, advantage: float, **others: float) -> PolicyLossInputs:
    return PolicyLossInputs(
        logprobs=torch.tensor([logprob], requires_grad=True),
        old_logprobs=torch.tensor([old]),
        advantages=torch.tensor([advantage]),
        row_offsets=torch.tensor([0, 1]),
        **{name: torch.tensor([value]) for name, value in others.items()},
    )


ONE = PolicyNormaliser(tokens=1, rollouts=1, max_response_tokens=1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.25, 1.0, -1.25, False),  # within 1 + 0.28
        (1.50, 1.0, -1.28, True),  # above it: no more gain
        (1.50, -1.0, 1.50, False),  # a bad token that became likelier keeps its gradient
        (0.85, -1.0, 0.85, False),  # within 1 - 0.2
        (0.50, -1.0, 0.80, True),  # below it: no more gain
        (0.50, 1.0, -0.50, False),
    ],
)
def test_the_clip_is_asymmetric_and_one_sided(
    ratio: float, advantage: float, loss: float, clipped: bool
) -> None:
    inputs = one_token(math.log(ratio), 0.0, advantage)
    value, sums = policy_loss(inputs, config=method(clip_low=0.2, clip_high=0.28), normaliser=ONE)
    assert value.item() == pytest.approx(loss, rel=1e-6)
    assert sums["clip_share"].item() == float(clipped)
    (gradient,) = torch.autograd.grad(value, inputs.logprobs)
    assert (gradient.item() == 0.0) == clipped


def test_k3_by_hand_and_never_negative() -> None:
    value = k3(torch.log(torch.tensor([0.5])), torch.log(torch.tensor([0.25])))
    assert value.item() == pytest.approx(0.5 + math.log(2) - 1, rel=1e-6)
    logprobs, reference = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert bool((k3(logprobs, reference) >= 0).all())
    assert k3(logprobs, logprobs).abs().max() == 0


def test_k3_averages_to_the_true_divergence_under_the_policy() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    truth = (policy * (policy / reference).log()).sum()
    assert (policy * k3(policy.log(), reference.log())).sum().item() == pytest.approx(truth.item(), rel=1e-5)


@pytest.mark.parametrize(("cap", "weight"), [(0.0, 1.0), (2.0, 2.0), (5.0, math.exp(1.0))])
def test_importance_weights_are_truncated_and_off_at_zero(cap: float, weight: float) -> None:
    inputs = one_token(-1.0, -1.0, 1.0, sampler_logprobs=-2.0)
    value, sums = policy_loss(inputs, config=method(importance_cap=cap), normaliser=ONE)
    assert value.item() == pytest.approx(-weight, rel=1e-6)
    assert sums["sampler_difference"].item() == pytest.approx(1.0)
    assert ("importance_weight" in sums) == (cap > 0)


def test_importance_weights_below_one_are_kept() -> None:
    inputs = one_token(-2.0, -2.0, 1.0, sampler_logprobs=-1.0)
    value, _ = policy_loss(inputs, config=method(importance_cap=2.0), normaliser=ONE)
    assert value.item() == pytest.approx(-math.exp(-1.0), rel=1e-6)


@pytest.mark.parametrize("gap", [300.0, -300.0])
def test_an_extreme_log_ratio_stays_finite(gap: float) -> None:
    inputs = one_token(gap, 0.0, -1.0, reference_logprobs=0.0, sampler_logprobs=gap)
    config = method(kl_coefficient=0.1, importance_cap=2.0)
    value, sums = policy_loss(inputs, config=config, normaliser=ONE)
    (gradient,) = torch.autograd.grad(value, inputs.logprobs)
    assert bool(value.isfinite()) and bool(gradient.isfinite().all())
    assert sums["ratio"].item() == pytest.approx(math.exp(math.copysign(20, gap)), rel=1e-5)


def test_entropy_is_a_bonus() -> None:
    inputs = one_token(-1.0, -1.0, 0.0, entropy=0.5)
    value, sums = policy_loss(inputs, config=method(entropy_coefficient=0.1), normaliser=ONE)
    assert value.item() == pytest.approx(-0.05)
    assert sums["entropy"].item() == 0.5


def test_metrics_are_sums_over_tokens() -> None:
    inputs = PolicyLossInputs(
        logprobs=torch.log(torch.tensor([1.5, 0.5])),
        old_logprobs=torch.zeros(2),
        advantages=torch.ones(2),
        row_offsets=torch.tensor([0, 2]),
    )
    _, sums = policy_loss(inputs, config=method(), normaliser=ONE)
    assert {name: round(value.item(), 6) for name, value in sums.items()} == {
        "tokens": 2.0,
        "ratio": 2.0,
        "clip_share": 1.0,
        "approx_kl": round(0.5 - math.log(1.5) - 0.5 - math.log(0.5), 6),
    }


def test_a_microbatch_without_rows_has_a_loss_of_zero_that_can_be_differentiated() -> None:
    logprobs = torch.zeros(0, requires_grad=True)
    empty = torch.zeros(0)
    inputs = PolicyLossInputs(logprobs, empty, empty, torch.tensor([0]))
    value, _ = policy_loss(inputs, config=method(), normaliser=NORMALISER)
    value.backward()
    assert value.item() == 0.0


@pytest.mark.parametrize("field", ["kl_coefficient", "entropy_coefficient", "importance_cap"])
def test_a_coefficient_without_its_input_is_an_error_that_names_it(field: str) -> None:
    with pytest.raises(ValueError, match=f"method.{field}"):
        policy_loss(one_token(-1.0, -1.0, 1.0), config=method(**{field: 1.0}), normaliser=ONE)


def test_a_rollout_whose_mean_difference_is_above_the_limit_is_left_out_whole() -> None:
    difference = torch.tensor([0.125, -0.25, 0.0, 1.0, -0.5, 0.25])  # means 0.1875, 0.5 and 0.25
    kept = near_rollouts(difference, torch.tensor([0, 2, 2, 5, 6]), limit=0.25)  # the second has no tokens
    assert kept.tolist() == [1, 1, 0, 0, 0, 1]


def test_masked_rollouts_have_no_gradient_and_the_others_keep_theirs() -> None:
    inputs = random_inputs()
    assert inputs.sampler_logprobs is not None
    far = inputs.sampler_logprobs.clone()
    far[LENGTHS[0] + LENGTHS[1] :][: LENGTHS[2]] -= 5.0  # the third rollout
    stale = replace(inputs, sampler_logprobs=far, entropy=None, reference_logprobs=None)
    gradients = []
    for mask in (0.0, 2.0):
        loss, _ = policy_loss(stale, config=method(sequence_mask=mask), normaliser=NORMALISER)
        (gradient,) = torch.autograd.grad(loss, inputs.logprobs)
        gradients.append(gradient)
    third = slice(LENGTHS[0] + LENGTHS[1], LENGTHS[0] + LENGTHS[1] + LENGTHS[2])
    assert torch.equal(gradients[1][third], torch.zeros(LENGTHS[2], dtype=torch.float64))
    gradients[0][third] = 0.0
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_gradient_of_a_kl_estimate_is_known(estimator: str) -> None:
    """Over all tokens by their probability: k2's is that of KL(policy || reference), k3's of the reverse."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
    policy = torch.log_softmax(logits, -1)
    reference = torch.log_softmax(torch.randn(5, dtype=torch.float64, generator=generator), -1)
    wanted = {
        "k2": (policy.exp() * (policy - reference)).sum(),
        "k3": (reference.exp() * (reference - policy)).sum(),
    }[estimator]
    (exact,) = torch.autograd.grad(wanted, logits, retain_graph=True)
    mean = torch.zeros(5, dtype=torch.float64)
    for token in range(5):
        inputs = PolicyLossInputs(
            logprobs=policy[token : token + 1],
            old_logprobs=policy[token : token + 1].detach(),
            advantages=torch.zeros(1, dtype=torch.float64),
            row_offsets=torch.tensor([0, 1]),
            reference_logprobs=reference[token : token + 1],
        )
        loss, _ = policy_loss(
            inputs, config=method(kl_coefficient=1.0, kl_estimator=estimator), normaliser=ONE
        )
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        mean += policy[token].exp().detach() * gradient
    torch.testing.assert_close(mean, exact)
