"""The AIRL discriminator: its loss, its optimum, its saturation, its weights."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax

from airls_ray.config.schema import PRMConfig
from airls_ray.objectives.airl import (
    DiscriminatorInputs,
    class_weights,
    discriminator_loss,
    reduce_to_steps,
    shape_rewards,
    step_logits,
)
from airls_ray.prm.objectives.airl import AIRLObjective


def inputs(logits: list[float], labels: list[float], weights: list[float]) -> DiscriminatorInputs:
    return DiscriminatorInputs(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights))


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def test_the_loss_equals_a_float64_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, generator=generator, dtype=torch.float64)
    expert = torch.rand(40, generator=generator) < 0.3
    weights = class_weights(torch.zeros(40, dtype=torch.int64), expert, pair_by_problem=False)
    loss, _ = discriminator_loss(DiscriminatorInputs(logits, expert.double(), weights.double()))
    good = [softplus(-x) for x, e in zip(logits.tolist(), expert.tolist(), strict=True) if e]
    bad = [softplus(x) for x, e in zip(logits.tolist(), expert.tolist(), strict=True) if not e]
    assert loss.item() == pytest.approx(0.5 * sum(good) / len(good) + 0.5 * sum(bad) / len(bad), rel=1e-6)


def test_microbatches_add_up() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    labels, weights = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.25, 0.5, 0.25])
    whole, whole_sums = discriminator_loss(DiscriminatorInputs(logits, labels, weights))
    parts = [
        discriminator_loss(DiscriminatorInputs(logits[a:b], labels[a:b], weights[a:b]))
        for a, b in [(0, 1), (1, 1), (1, 3)]
    ]
    total = torch.stack([loss for loss, _ in parts]).sum()
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, logits), torch.autograd.grad(whole, logits))
    for name, value in whole_sums.items():
        torch.testing.assert_close(torch.stack([sums[name] for _, sums in parts]).sum(), value)


def log_table(seed: int, states: int, actions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return log_softmax(2 * torch.randn(states, actions, generator=generator, dtype=torch.float64), -1)


def visits(log_policy: torch.Tensor, moves: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Mean state distribution of `steps` steps from a uniform start; moves [state, action, next]."""
    now = torch.full((len(log_policy),), 1.0 / len(log_policy), dtype=torch.float64)
    total = torch.zeros_like(now)
    for _ in range(steps):
        total = total + now / steps
        now = torch.einsum("s,sa,san->n", now, log_policy.exp(), moves)
    return total


def fit_discriminator(
    expert_visits: torch.Tensor,
    log_expert: torch.Tensor,
    policy_visits: torch.Tensor,
    log_policy: torch.Tensor,
    normalised: bool,
) -> torch.Tensor:
    """Minimise the discriminator loss over a table f [state, action] and return it."""
    joint = [expert_visits[:, None] * log_expert.exp(), policy_visits[:, None] * log_policy.exp()]
    weights = 0.5 * torch.cat([side.flatten() for side in joint])
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat_interleave(log_policy.numel())
    # float64: the loss is nearly flat in f of an action that both sides rarely take.
    table = torch.zeros_like(log_policy, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [table], max_iter=300, tolerance_grad=1e-9, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def f() -> torch.Tensor:
        return log_softmax(table, -1) if normalised else table

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = step_logits(f().flatten(), log_policy.flatten()).repeat(2)
        loss, _ = discriminator_loss(DiscriminatorInputs(logits, labels, weights))
        loss.backward()
        return loss

    optimiser.step(closure)
    return f().detach()


def test_on_a_tabular_mdp_the_optimum_is_the_expert_up_to_a_constant_per_state() -> None:
    """Fu et al. 2018, section 4. The constant is the log-ratio of the state visits, known here."""
    log_policy, log_expert = log_table(1, 4, 5), log_table(2, 4, 5)
    moves = log_table(3, 20, 4).exp().view(4, 5, 4)
    expert_visits, policy_visits = visits(log_expert, moves), visits(log_policy, moves)
    f = fit_discriminator(expert_visits, log_expert, policy_visits, log_policy, normalised=False)
    constant = (expert_visits / policy_visits).log()
    assert constant.abs().max() > 0.1
    torch.testing.assert_close(f, log_expert + constant[:, None], atol=1e-3, rtol=0)


def test_a_normalised_f_is_the_expert_itself_where_states_are_paired() -> None:
    """The `log_prob` parameterisation: its reward is then log pi_expert - log pi_policy."""
    log_policy, log_expert = log_table(1, 4, 5), log_table(2, 4, 5)
    equal = torch.full((4,), 0.25, dtype=torch.float64)
    f = fit_discriminator(equal, log_expert, equal, log_policy, normalised=True)
    torch.testing.assert_close(f, log_expert, atol=1e-3, rtol=0)


def saturation(how: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Both classes take 40-token steps of about 0.3 nats a token; f starts at 0."""
    generator = torch.Generator().manual_seed(0)
    steps, length = 20, 40
    token_logprobs = -0.6 * torch.rand(steps * length, generator=generator)
    step_index = torch.arange(steps).repeat_interleave(length)
    labels = torch.arange(steps).remainder(2).float()
    f = torch.zeros(steps, requires_grad=True)
    logits = step_logits(f, reduce_to_steps(token_logprobs, step_index, steps, how))
    weights = torch.full((steps,), 0.5 / (steps / 2))
    loss, sums = discriminator_loss(DiscriminatorInputs(logits, labels, weights))
    (gradient,) = torch.autograd.grad(loss, f)
    return gradient[labels > 0.5].abs() / weights[labels > 0.5], sums


def test_the_sum_of_log_probabilities_saturates_and_the_metrics_show_it() -> None:
    expert_gradient, sums = saturation("sum")
    assert sums["logit_abs"] > 10  # nats, methods.md: "a 40-token step starts at logit +12"
    assert expert_gradient.max() < 1e-3
    assert sums["expert_correct"] / sums["expert_weight"] == 1.0
    assert sums["policy_correct"] / sums["policy_weight"] == 0.0


def test_the_mean_of_log_probabilities_does_not_saturate() -> None:
    expert_gradient, sums = saturation("mean")
    assert sums["logit_abs"] < 0.5
    assert expert_gradient.min() > 0.4
    assert sums["entropy"] > 0.65  # of log 2 = 0.693


def test_no_gradient_reaches_the_policy() -> None:
    f, log_policy = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    step_logits(f, log_policy).sum().backward()
    assert f.grad is not None
    assert log_policy.grad is None


def test_steps_are_reduced_by_mean_or_sum() -> None:
    values, index = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 0, 1])
    assert reduce_to_steps(values, index, 2, "mean").tolist() == [1.5, 5.0]
    assert reduce_to_steps(values, index, 2, "sum").tolist() == [3.0, 5.0]
    with pytest.raises(ValueError, match="mean or sum"):
        reduce_to_steps(values, index, 2, "max")  # type: ignore[arg-type]


GROUP = torch.tensor([7, 7, 7, 7, 3, 3, 9, 5])
EXPERT = torch.tensor([True, False, False, False, True, False, True, False])


def test_unpaired_classes_sum_to_a_half_each() -> None:
    weights = class_weights(GROUP, EXPERT, pair_by_problem=False)
    third, fifth = 0.5 / 3, 0.5 / 5
    wanted = [third, fifth, fifth, fifth, third, fifth, third, fifth]
    torch.testing.assert_close(weights, torch.tensor(wanted))


def test_paired_problems_weigh_the_same_on_both_sides() -> None:
    weights = class_weights(GROUP, EXPERT, pair_by_problem=True)
    # Problem 7: three policy steps, one reference step; problem 3: one and one; 9 and 5 lack a side.
    wanted = [0.375, 0.125, 0.125, 0.125, 0.125, 0.125, 0.0, 0.0]
    torch.testing.assert_close(weights, torch.tensor(wanted))
    torch.testing.assert_close(weights[EXPERT].sum(), torch.tensor(0.5))
    torch.testing.assert_close(weights[~EXPERT].sum(), torch.tensor(0.5))


def test_several_reference_steps_share_their_problem_s_weight() -> None:
    weights = class_weights(torch.zeros(4, dtype=torch.int64), torch.tensor([1, 1, 1, 0]).bool(), True)
    torch.testing.assert_close(weights, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]))


@pytest.mark.parametrize("expert", [True, False])
def test_a_missing_class_gives_no_infinite_weight(expert: bool) -> None:
    group, sides = torch.tensor([0, 1]), torch.tensor([expert, expert])
    assert class_weights(group, sides, pair_by_problem=False).tolist() == [0.25, 0.25]
    assert class_weights(group, sides, pair_by_problem=True).tolist() == [0.0, 0.0]
    empty = torch.zeros(0, dtype=torch.int64)
    assert class_weights(empty, empty.bool(), pair_by_problem=True).tolist() == []


def test_label_smoothing_by_hand() -> None:
    loss, _ = discriminator_loss(inputs([2.0, -1.0], [1.0, 0.0], [0.5, 0.5]), label_smoothing=0.1)
    expert = 0.9 * softplus(-2.0) + 0.1 * softplus(2.0)
    policy = 0.1 * softplus(1.0) + 0.9 * softplus(-1.0)
    assert loss.item() == pytest.approx(0.5 * expert + 0.5 * policy, rel=1e-6)


def test_the_logit_clip_bounds_loss_and_gradient_but_not_the_metrics() -> None:
    logits = torch.tensor([-8.0, -1.0], requires_grad=True)
    batch = DiscriminatorInputs(logits, torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
    loss, sums = discriminator_loss(batch, logit_clip=3.0)
    assert loss.item() == pytest.approx(0.5 * softplus(3.0) + 0.5 * softplus(-1.0), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0] == 0.0
    assert gradient[1] != 0.0
    assert sums["logit_abs"].item() == 4.5


def test_metrics_by_hand() -> None:
    _, sums = discriminator_loss(
        inputs(
            [1.0, -1.0, -2.0, 2.0, 5.0, 5.0], [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.3, 0.2, 0.1, 0.4, 0.0, 0.0]
        )
    )
    got = {name: round(value.item(), 6) for name, value in sums.items() if name != "entropy"}
    assert got == {
        "expert_weight": 0.5,
        "policy_weight": 0.5,
        "expert_correct": 0.3,
        "policy_correct": 0.1,
        "logit_abs": 1.5,
        "expert_steps": 2,
        "policy_steps": 2,
    }


def test_the_entropy_of_an_undecided_discriminator_is_log_two() -> None:
    _, sums = discriminator_loss(inputs([0.0, 0.0], [1.0, 0.0], [0.5, 0.5]))
    assert sums["entropy"].item() == pytest.approx(math.log(2))
    assert sums["expert_correct"] == sums["policy_correct"] == 0.0


def test_extreme_logits_stay_finite() -> None:
    loss, sums = discriminator_loss(inputs([1e4, -1e4], [0.0, 1.0], [0.5, 0.5]))
    assert loss.item() == pytest.approx(1e4)
    assert all(bool(value.isfinite()) for value in sums.values())


def test_shaping_telescopes_to_minus_the_first_potential() -> None:
    generator = torch.Generator().manual_seed(0)
    g, h = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3, 5])
    shaping = shape_rewards(g, h, rows) - g
    for row, first in ((0, 0), (2, 3), (3, 4), (5, 8)):
        assert shaping[rows == row].sum().item() == pytest.approx(-h[first].item())


def test_shaping_by_hand() -> None:
    f = shape_rewards(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 5.0, 7.0]), torch.tensor([0, 0, 1]))
    assert f.tolist() == [4.0, -4.0, -6.0]


def test_metrics_of_the_discriminator_are_means_by_weight() -> None:
    sums = {"expert_weight": 0.5, "policy_weight": 1.5, "expert_correct": 0.25, "policy_correct": 0.3}
    more = {"entropy": 1.0, "logit_abs": 3.0, "expert_steps": 3.0, "policy_steps": 1.0}
    assert AIRLObjective(PRMConfig()).metrics({**sums, **more}) == pytest.approx({
        "prm/expert_accuracy": 0.5, "prm/policy_accuracy": 0.2,
        "prm/entropy": 0.5, "prm/logit_abs_mean": 1.5, "prm/expert_share": 0.75,
    })  # fmt: skip
