"""The rePIRL objective: its gradient on an enumerable toy problem, its weights, where they collapse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.objectives.repirl import (
    effective_sample_size,
    log_weights,
    repirl_loss,
    weight_multipliers,
)
from airls_ray.prm.objective import RowSums
from airls_ray.prm.objectives.repirl import RepirlObjective

TOKENS, LENGTH = 3, 3


def all_responses() -> Tensor:
    """Every response of three tokens out of three: [27, 3]."""
    return torch.tensor(list(itertools.product(range(TOKENS), repeat=LENGTH)))


def table(seed: int) -> Tensor:
    return torch.randn(LENGTH, TOKENS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(tensor: Tensor, responses: Tensor) -> Tensor:
    """[N, LENGTH]: the table's entry of each token at its position."""
    return tensor[torch.arange(LENGTH), responses]


def test_the_gradient_is_that_of_maximum_entropy_irl_on_all_responses() -> None:
    """With every response weighed by pi, reweighting by exp(sum phi) / pi gives the gradient of log Z."""
    responses, phi = all_responses(), table(1).requires_grad_()
    log_pi = values(torch.log_softmax(table(2), -1), responses).sum(1)
    expert = responses[[5, 5, 14]]
    log_z = torch.logsumexp(values(phi, responses).sum(1), 0) / LENGTH
    wanted = torch.autograd.grad(log_z - values(phi, expert).mean(), phi)[0]

    base, per_token = log_pi.exp(), values(phi, responses)
    lengths = torch.full((len(responses),), LENGTH)
    logs = log_weights(per_token.detach().sum(1), log_pi, lengths, "sum")
    weights = base * weight_multipliers(logs, base) / LENGTH
    tokens = torch.cat([per_token.flatten(), values(phi, expert).flatten()])
    zeros, experts = torch.zeros(expert.numel()), torch.full((expert.numel(),), 1.0 / expert.numel())
    loss, _ = repirl_loss(
        tokens,
        torch.cat([torch.zeros(responses.numel()), experts]).double(),
        torch.cat([weights.repeat_interleave(LENGTH), zeros]).double(),
    )
    torch.testing.assert_close(torch.autograd.grad(loss, phi)[0], wanted)


def test_at_the_experts_own_distribution_the_gradient_vanishes() -> None:
    """phi = log pi_expert (up to a constant) is the optimum: the reward that explains the experts."""
    responses = all_responses()
    expert_policy = torch.log_softmax(table(3), -1)
    phi = (expert_policy + 0.7).requires_grad_()
    chance = values(expert_policy, responses).sum(1).exp()
    log_pi = values(torch.log_softmax(table(4), -1), responses).sum(1)
    per_token = values(phi, responses)
    logs = log_weights(per_token.detach().sum(1), log_pi, torch.full((27,), LENGTH), "sum")
    base = log_pi.exp()
    policy = (base * weight_multipliers(logs, base) / LENGTH).repeat_interleave(LENGTH)
    loss, _ = repirl_loss(per_token.flatten(), (chance / LENGTH).repeat_interleave(LENGTH), policy)
    assert torch.autograd.grad(loss, phi)[0].abs().max() < 1e-12


def test_with_several_questions_the_gradient_is_the_mean_of_their_own() -> None:
    """Policies are conditional and so is Z(q): an offset of phi on one question must not take the others'
    weight."""
    responses, questions = all_responses(), 4
    size = len(responses)
    offsets = torch.tensor([0.0, 3.0, -1.0, 0.5], dtype=torch.float64)
    phi = (torch.stack([table(10 + q) for q in range(questions)]) + offsets[:, None, None]).requires_grad_()
    policies = [torch.log_softmax(table(20 + q), -1) for q in range(questions)]
    log_pi = torch.cat([values(policy, responses).sum(1) for policy in policies])
    per_token = torch.cat([values(phi[q], responses) for q in range(questions)])
    experts = torch.stack([values(phi[q], responses[[7 * q]]).mean() for q in range(questions)])
    log_z = torch.stack(
        [torch.logsumexp(values(phi[q], responses).sum(1), 0) / LENGTH for q in range(questions)]
    )
    wanted = torch.autograd.grad((log_z - experts).mean(), phi, retain_graph=True)[0]

    base = log_pi.exp() / questions
    logs = log_weights(per_token.detach().sum(1), log_pi, torch.full((size * questions,), LENGTH), "sum")
    groups = torch.arange(questions).repeat_interleave(size)

    def gradient(groups: Tensor | None) -> Tensor:
        weights = (base * weight_multipliers(logs, base, groups=groups)).repeat_interleave(LENGTH) / LENGTH
        loss, _ = repirl_loss(per_token.flatten(), torch.zeros(per_token.numel()), weights)
        return torch.autograd.grad(loss - experts.mean(), phi, retain_graph=True)[0]

    torch.testing.assert_close(gradient(groups), wanted)
    together = gradient(None)  # `weight_scope: batch`
    assert float((together - wanted).norm() / wanted.norm()) > 0.5


def test_log_weights_by_hand() -> None:
    phi, log_pi, lengths = torch.tensor([2.0, 1.0]), torch.tensor([-4.0, -3.0]), torch.tensor([3, 2])
    assert log_weights(phi, log_pi, lengths, "sum").tolist() == [6.0, 4.0]
    assert log_weights(phi, log_pi, lengths, "mean").tolist() == [2.0, 2.0]
    assert log_weights(phi, log_pi, lengths, "mean", temperature=4.0).tolist() == [0.5, 0.5]
    assert log_weights(phi, log_pi, lengths, "none").tolist() == [0.0, 0.0]


def test_an_unknown_weight_is_an_error() -> None:
    with pytest.raises(ValueError, match="mean, sum or none"):
        log_weights(torch.zeros(1), torch.zeros(1), torch.ones(1), "max")  # type: ignore[arg-type]


def test_the_sum_collapses_on_long_responses_and_the_mean_does_not() -> None:
    """600 tokens: one rollout has nearly all the weight of exp(sum phi) / pi (a regression test)."""
    generator = torch.Generator().manual_seed(0)
    rollouts, tokens = 64, 600
    log_pi = -0.6 * torch.rand(rollouts, tokens, generator=generator).sum(1)
    phi, base = torch.zeros(rollouts), torch.full((rollouts,), 1 / rollouts)
    lengths = torch.full((rollouts,), tokens)
    size = {
        how: effective_sample_size(
            weight_multipliers(log_weights(phi, log_pi, lengths, how), base), base, rollouts
        )
        for how in ("sum", "mean")
    }
    assert size["sum"] < 3.0
    assert size["mean"] > 60.0


def test_multipliers_keep_the_total_weight_and_the_ratios() -> None:
    logs, base = torch.tensor([0.0, 1.0, 900.0, 900.5]), torch.tensor([0.5, 0.2, 0.2, 0.1])
    factors = weight_multipliers(logs, base)
    assert float((base * factors).sum()) == pytest.approx(1.0)
    assert float(factors[3] / factors[2]) == pytest.approx(math.exp(0.5))


def test_a_cap_bounds_every_multiplier_and_keeps_the_total() -> None:
    logs, base = torch.tensor([5.0, 3.0, 0.0, 0.0, 0.0, -1.0]), torch.full((6,), 1 / 6)
    factors = weight_multipliers(logs, base, max_weight=2.0)
    assert float(factors.max()) == pytest.approx(2.0)
    assert float((base * factors).sum()) == pytest.approx(1.0)
    assert float(factors[2] / factors[5]) == pytest.approx(math.e)


def test_a_cap_keeps_the_total_however_far_the_weights_are_apart() -> None:
    """3,000 tokens against 300 and 200 at 0.3 nats: exp(-810) is 0 in float64."""
    factors = weight_multipliers(torch.tensor([900.0, 90.0, 60.0]), torch.full((3,), 1 / 3), max_weight=2.0)
    assert float(factors.sum() / 3) == pytest.approx(1.0)
    assert factors.tolist() == pytest.approx([2.0, 1.0, math.exp(-30.0)])


def test_rows_without_weight_do_not_count() -> None:
    factors = weight_multipliers(torch.tensor([0.0, 50.0]), torch.tensor([1.0, 0.0]))
    assert factors.tolist() == [1.0, 0.0]
    assert weight_multipliers(torch.zeros(2), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_a_row_that_stands_for_several_rollouts_counts_as_so_many() -> None:
    """Three rollouts, two of them equal: the same size as with a row for each."""
    each = weight_multipliers(torch.tensor([1.0, 1.0, 0.0]), torch.full((3,), 1 / 3))
    merged = weight_multipliers(torch.tensor([1.0, 0.0]), torch.tensor([2 / 3, 1 / 3]))
    weights = torch.tensor([math.e, math.e, 1.0])
    wanted = float(weights.sum() ** 2 / weights.square().sum())
    assert effective_sample_size(each, torch.full((3,), 1 / 3), 3) == pytest.approx(wanted)
    assert effective_sample_size(merged, torch.tensor([2 / 3, 1 / 3]), 3) == pytest.approx(wanted)


def test_the_loss_by_hand() -> None:
    """Two expert tokens of value 1 and 3, a failed rollout of one token of value 5."""
    phi = torch.tensor([1.0, 3.0, 5.0])
    loss, sums = repirl_loss(phi, torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    assert float(loss) == 3.0
    assert (float(sums["expert_value"]), float(sums["policy_value"])) == (2.0, 5.0)


def test_a_cap_below_the_mean_weight_makes_all_weights_equal() -> None:
    """The mean factor is 1, so no cap can be below: the total weight stays."""
    logs, base = torch.tensor([2.0, 0.0, -1.0]), torch.full((3,), 1 / 3)
    assert weight_multipliers(logs, base, max_weight=0.5).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_the_sets_of_weights_are_the_problems_that_have_a_failed_rollout() -> None:
    """Of three problems the last one has a trace alone."""
    objective = RepirlObjective(PRMConfig.model_validate({"repirl": {"weight_scope": "problem"}}))
    objective.prepare(RowSums(
        phi=torch.zeros(3), log_pi=torch.zeros(3), lengths=torch.ones(3, dtype=torch.int64),
        policy_weights=torch.tensor([0.25, 0.25, 0.0], dtype=torch.float64),
        problems=torch.arange(3), rollouts=2,
    ))  # fmt: skip
    sums = {name: 0.0 for name in ("expert_value", "policy_value", "expert_correct", "policy_correct")}
    found = objective.metrics({**sums, "expert_weight": 1.0, "policy_weight": 1.0})
    assert found["prm/weight_groups"] == 2.0
    assert found["prm/effective_sample_size"] == pytest.approx(2.0)
