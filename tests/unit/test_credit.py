"""Advantages against numbers computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from airls_ray.credit.filters import accuracy_band
from airls_ray.credit.formulas import (
    combine,
    outcome_advantages,
    step_advantages,
    steps_to_tokens,
    trajectory_rewards,
    whiten,
)
from airls_ray.credit.terms import overlong
from airls_ray.credit.transforms import largest_return, min_form

OUTCOMES = torch.tensor([1.0, 0.0, 0.0, 0.0])
ONE_GROUP = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        # mean 1/4; squares 9/16 + 3/16 = 3/4, over G - 1 = 3: variance 1/4, std 1/2
        ("grpo", [1.5, -0.5, -0.5, -0.5]),
        ("dr_grpo", [0.75, -0.25, -0.25, -0.25]),
        # the others of the first: mean 0; of the rest: 1/3
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_outcome_advantages_by_hand(how: str, wanted: list[float]) -> None:
    got = outcome_advantages(OUTCOMES, ONE_GROUP, how)
    torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-5, rtol=0)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("how", ["grpo", "dr_grpo", "rloo"])
def test_groups_do_not_mix_whatever_their_order_and_numbers(how: str) -> None:
    outcomes = torch.tensor([1.0, 0.2, 0.0, 0.9, 0.5])
    groups = torch.tensor([40, -3, 40, -3, 40])
    got = outcome_advantages(outcomes, groups, how)
    for group in (40, -3):
        alone = outcomes[groups == group]
        wanted = outcome_advantages(alone, torch.zeros(len(alone), dtype=torch.int64), how)
        torch.testing.assert_close(got[groups == group], wanted)


@pytest.mark.parametrize("how", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("outcome", [0.0, 1.0, 0.1])
def test_a_group_without_variance_gets_exactly_zero(how: str, outcome: float) -> None:
    for size in (1, 3, 7):
        outcomes = torch.full((size,), outcome, dtype=torch.float64)
        assert (
            outcome_advantages(outcomes, torch.zeros(size, dtype=torch.int64), how).tolist() == [0.0] * size
        )


def test_an_outcome_that_was_not_graded_is_an_error_that_names_the_rollout() -> None:
    with pytest.raises(ValueError, match="outcome of rollout 1 is nan"):
        outcome_advantages(torch.tensor([1.0, math.nan]), torch.tensor([0, 0]), "grpo")


def test_an_unknown_advantage_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one of .*grpo.*, but is 'ppo'"):
        outcome_advantages(OUTCOMES, ONE_GROUP, "ppo")  # type: ignore[arg-type]


# Group 0: rollouts 0 (rewards 1, 3) and 1 (reward 2): mean 2, unbiased std 1 -> -1, 1 and 0.
# Group 1: rollout 2 (rewards 0, 0, 6, 2): mean 2, squares 4+4+16+0 = 24, std sqrt(8).
REWARDS = torch.tensor([1.0, 3.0, 2.0, 0.0, 0.0, 6.0, 2.0])
STEP_ROWS = torch.tensor([0, 0, 1, 2, 2, 2, 2])
GROUPS = torch.tensor([0, 0, 1])
Z = 2 / math.sqrt(8)


def test_step_advantages_by_hand() -> None:
    got = step_advantages(REWARDS, STEP_ROWS, GROUPS, per_step=False)
    wanted = [0.0, 1.0, 0.0, 0.0, Z, 2 * Z, 0.0]
    torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-5, rtol=0)


def test_step_advantages_per_step_by_hand() -> None:
    got = step_advantages(REWARDS, STEP_ROWS, GROUPS, per_step=True)
    wanted = [0.0, 1.0, 0.0, 0.0, Z / 3, 2 * Z / 2, 0.0]
    torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-5, rtol=0)


def test_length_cannot_pay() -> None:
    """A rollout whose steps all have standardised reward r has advantage r at each, long or short."""
    lengths = [1, 2, 5, 30]
    rows = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    rewards = torch.tensor([0.5, 2.0, -1.0, 0.5])[rows].double()
    standard = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    got = step_advantages(rewards, rows, torch.zeros(4, dtype=torch.int64), per_step=True)
    torch.testing.assert_close(got, standard)
    assert got[0].item() == pytest.approx(got[-1].item())


def test_without_per_step_length_does_pay() -> None:
    rows = torch.tensor([0, 1, 1, 1, 2])
    rewards = torch.tensor([1.0, 1.0, 1.0, 1.0, -4.0])
    got = step_advantages(rewards, rows, torch.zeros(3, dtype=torch.int64), per_step=False)
    assert got[1].item() == pytest.approx(3 * got[0].item(), rel=1e-5)


@pytest.mark.parametrize("per_step", [True, False])
def test_equal_step_rewards_give_exactly_zero(per_step: bool) -> None:
    rewards = torch.full((6,), 0.1, dtype=torch.float64)
    rows = torch.tensor([0, 0, 0, 1, 1, 2])
    assert step_advantages(rewards, rows, torch.tensor([0, 0, 1]), per_step).tolist() == [0.0] * 6


def test_a_rollout_without_steps_is_skipped() -> None:
    rewards, rows = torch.tensor([1.0, 3.0]), torch.tensor([0, 2])
    got = step_advantages(rewards, rows, torch.tensor([0, 0, 0]), per_step=False)
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0]) / math.sqrt(2), atol=1e-5, rtol=0)
    empty = torch.zeros(0)
    assert step_advantages(empty, empty.long(), torch.tensor([0]), per_step=True).tolist() == []


def test_bad_step_rewards_are_an_error() -> None:
    with pytest.raises(ValueError, match="consecutive"):
        step_advantages(torch.ones(3), torch.tensor([0, 1, 0]), torch.tensor([0, 0]), per_step=True)
    with pytest.raises(ValueError, match="reward of step 1 is inf"):
        step_advantages(torch.tensor([0.0, math.inf]), torch.tensor([0, 0]), torch.tensor([0]), per_step=True)


OUTCOME, STEP, ROWS = torch.tensor([1.0, -1.0]), torch.tensor([10.0, 20.0, 30.0]), torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("weight", "wanted"), [(0.0, [1.0, -1.0, -1.0]), (1.0, [10.0, 20.0, 30.0]), (0.25, [3.25, 4.25, 6.75])]
)
def test_sources_are_combined_by_weight(weight: float, wanted: list[float]) -> None:
    assert combine(OUTCOME, STEP, ROWS, weight).tolist() == wanted


def test_without_a_prm_only_the_outcome_counts() -> None:
    assert combine(OUTCOME, None, ROWS, 0.0).tolist() == [1.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="needs step rewards"):
        combine(OUTCOME, None, ROWS, 0.5)


def test_every_token_gets_the_value_of_its_step() -> None:
    assert steps_to_tokens(STEP, torch.tensor([0, 0, 1, 2, 2])).tolist() == [10, 10, 20, 30, 30]


def test_an_immediate_step_advantage_is_the_standardised_reward_itself() -> None:
    rewards = torch.tensor([1.0, 3.0, 1.0, 3.0])
    advantages = step_advantages(
        rewards, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0]), per_step=True, to_go=False
    )
    # Mean 2, unbiased std of (1, 3, 1, 3) is sqrt(4 / 3).
    expected = torch.tensor([-1.0, 1.0, -1.0, 1.0]) / (4 / 3) ** 0.5
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------- PRIME, PURE, DAPO, rePIRL
def test_leave_one_out_by_hand() -> None:
    """Means 2, 0 and 1: the others of the first have 1/2, of the second 3/2, of the third 1."""
    rewards, rows = torch.tensor([1.0, 3.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 2])
    got = step_advantages(
        rewards, rows, torch.zeros(3, dtype=torch.int64), False, to_go=False, baseline="leave_one_out"
    )
    assert got.tolist() == [0.5, 2.5, -1.5, 0.0]


def test_leave_one_out_of_a_single_rollout_is_exactly_zero() -> None:
    got = step_advantages(
        torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), torch.tensor([7]), False, baseline="leave_one_out"
    )
    assert got.tolist() == [0.0, 0.0]


def test_primes_return_by_hand() -> None:
    """Two rollouts of a group, token rewards [1, 2] and [4]: r - baseline = [-3, -2], [2.5]; summed to go."""
    rewards, rows = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1])
    got = step_advantages(
        rewards, rows, torch.zeros(2, dtype=torch.int64), per_step=False, baseline="leave_one_out"
    )
    assert got.tolist() == [-5.0, -2.0, 2.5]


def test_min_form_by_hand() -> None:
    """T = 1, rewards 0 and ln 3: weights 3/4 and 1/4."""
    got = min_form.transform(torch.tensor([0.0, math.log(3), 5.0]), torch.tensor([0, 0, 1]), 1.0)
    torch.testing.assert_close(got, torch.tensor([0.0, math.log(3) / 4, 5.0]))


def test_a_cold_min_form_sums_to_the_least_reward() -> None:
    rewards, rows = torch.tensor([0.9, -0.4, 0.2, 0.7, 0.1]), torch.tensor([0, 0, 0, 1, 1])
    weighted = min_form.transform(rewards, rows, 1e-3)
    torch.testing.assert_close(trajectory_rewards(weighted, rows, 2, "sum"), torch.tensor([-0.4, 0.1]))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("mean", [2.0, 0.0, -1.0]),
        ("sum", [4.0, 0.0, -1.0]),
        ("min", [1.0, 0.0, -1.0]),
        ("last", [3.0, 0, -1]),
    ],
)
def test_trajectory_rewards_by_hand(how: str, wanted: list[float]) -> None:
    """The second rollout has no steps."""
    got = trajectory_rewards(torch.tensor([1.0, 3.0, -1.0]), torch.tensor([0, 0, 2]), 3, how)
    assert got.tolist() == wanted


def test_an_unknown_trajectory_reward_is_an_error() -> None:
    with pytest.raises(ValueError, match="mean, sum, min or last"):
        trajectory_rewards(torch.zeros(1), torch.tensor([0]), 1, "max")  # type: ignore[arg-type]


def test_the_overlong_penalty_falls_linearly_over_its_buffer() -> None:
    lengths = torch.tensor([10, 80, 90, 100, 120])
    fifth = [0.0, 0.0, -0.5, -1.0, -1.0]
    assert overlong.term(lengths, 100, 20).tolist() == fifth
    assert overlong.term(lengths, 100).tolist() == fifth
    assert overlong.term(lengths, 100, 0).tolist() == [0.0] * 5


def test_whitening_counts_every_token() -> None:
    values, tokens = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2, 1, 3])
    got = whiten(values, tokens)
    spread = torch.repeat_interleave(values.double(), tokens)
    wanted = (values.double() - spread.mean()) / spread.std()
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0)


def test_whitening_of_equal_values_is_zero() -> None:
    assert whiten(torch.full((3,), 0.1), torch.ones(3)).abs().max() < 1e-6


def test_rewards_are_divided_by_the_largest_return_of_the_batch() -> None:
    """Returns to the end by hand: (0.5, 1.5, -0.5) and (-4, -3); the largest is 4."""
    rewards, rows = torch.tensor([-1.0, 2.0, -0.5, -1.0, -3.0]), torch.tensor([0, 0, 0, 1, 1])
    all_learn = torch.ones(2, dtype=torch.bool)
    found = largest_return.transform(rewards, rows, all_learn)
    torch.testing.assert_close(found, rewards / 4.0)
    only_first = torch.tensor([True, False])
    torch.testing.assert_close(largest_return.transform(rewards, rows, only_first), rewards / 1.5)
    noise = torch.tensor([1e-6, -2e-6])
    assert torch.equal(largest_return.transform(noise, torch.tensor([0, 1]), all_learn), noise)


def test_min_form_points_at_the_mistake_with_signed_rewards_alone() -> None:
    """PURE: of (.95 .9 .03 .9 .9) the third step is wrong; by p(right) - p(wrong) its return is lowest."""
    probability, rows = torch.tensor([0.95, 0.9, 0.03, 0.9, 0.9], dtype=torch.float64), torch.zeros(5).long()

    def to_go(rewards: Tensor) -> list[float]:
        form = min_form.transform(rewards, rows, 0.1)
        return form.flip(0).cumsum(0).flip(0).tolist()

    assert to_go(2 * probability - 1) == pytest.approx([-0.94, -0.94, -0.94, 0.0, 0.0], abs=1e-3)
    assert min(to_go(probability)) > 0.0


def test_a_rollout_without_steps_is_none_of_the_others() -> None:
    """Mean rewards 1 and 3; the rollout between them has no step, and no part in a mean over the others."""
    rewards, rows = torch.tensor([1.0, 3.0]), torch.tensor([0, 2])
    groups = torch.zeros(3, dtype=torch.int64)
    found = step_advantages(rewards, rows, groups, False, to_go=False, baseline="leave_one_out")
    assert found.tolist() == [-2.0, 2.0]


def test_min_form_of_rewards_of_hundreds_of_nats_is_finite() -> None:
    """-r / T = 1,000 is beyond what exp holds; the rewards of another rollout stay what they are."""
    rewards = torch.tensor([-100.0, 0.0, 60.0, 70.0])
    found = min_form.transform(rewards, torch.tensor([0, 0, 1, 1]), temperature=0.1)
    assert found.tolist() == pytest.approx([-100.0, 0.0, 60.0, 0.0])


def test_a_band_includes_its_bound_for_outcomes_of_float32() -> None:
    """0.8 as float32 is a little above 0.8: it is on the bound."""
    outcomes = torch.tensor([0.8, 0.8], dtype=torch.float32)
    groups = torch.zeros(2, dtype=torch.int64)
    assert float(outcomes.double().mean()) > 0.8
    assert accuracy_band.keep(outcomes, groups, (0.2, 0.8)).tolist() == [True, True]
