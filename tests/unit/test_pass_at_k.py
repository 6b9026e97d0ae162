"""Advantages for the best of K: against all sets of K, enumerated, and the paper's two formulas."""

from __future__ import annotations

from itertools import combinations
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from airls_ray.config.load import load_config
from airls_ray.credit.formulas import outcome_advantages
from airls_ray.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def by_enumeration(rewards: list[float], k: int) -> list[float]:
    """Each set's best against all sets' bests, and of a rollout the mean over its sets."""
    sets = list(combinations(range(len(rewards)), k))
    bests = np.array([max(rewards[at] for at in one) for one in sets])
    if bests.max() == bests.min():
        return [0.0] * len(rewards)
    advantages = (bests - bests.mean()) / bests.std()
    return [
        float(np.mean([a for one, a in zip(sets, advantages, strict=True) if at in one]))
        for at in range(len(rewards))
    ]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("ties", [True, False], ids=["ties", "all different"])
def test_it_is_the_mean_over_the_sets_that_a_rollout_is_in(k: int, ties: bool) -> None:
    rng = np.random.default_rng(k)
    rewards = (rng.integers(0, 3, 8) / 2 if ties else rng.normal(size=8)).tolist()
    exact = torch.tensor(rewards, dtype=torch.float64)
    found = outcome_advantages(exact, torch.zeros(8).long(), "pass_at_k", k)
    assert found.tolist() == pytest.approx(by_enumeration(rewards, k), abs=1e-12)


@pytest.mark.parametrize(("right", "k"), [(1, 4), (3, 4), (12, 4), (1, 8), (8, 8)])
def test_outcomes_of_0_and_1_give_the_papers_two_values(right: int, k: int) -> None:
    n, wrong = 16, 16 - right
    share = 1 - comb(wrong, k) / comb(n, k)
    scale = sqrt(share * (1 - share))
    good = (1 - share) / scale
    bad = (1 - share - comb(wrong - 1, k - 1) / comb(n - 1, k - 1)) / scale
    outcomes = torch.tensor([1.0] * right + [0.0] * wrong, dtype=torch.float64)
    found = outcome_advantages(outcomes, torch.zeros(n).long(), "pass_at_k", k).tolist()
    assert found == pytest.approx([good] * right + [bad] * wrong, abs=1e-12)


def test_a_group_whose_every_set_is_right_teaches_nothing() -> None:
    groups = torch.tensor([0] * 8 + [1] * 8 + [2] * 8 + [3] * 3)
    outcomes = torch.tensor([1.0] * 5 + [0.0] * 3 + [0.0] * 8 + [0.7] * 8 + [1.0, 0.0, 0.0])
    assert outcome_advantages(outcomes, groups, "pass_at_k", 4).tolist() == [0.0] * 27


def test_groups_do_not_touch_each_other_and_the_order_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(0, 300, (4800,), generator=generator)
    rewards = torch.rand(4800, generator=generator).round(decimals=1)
    whole = outcome_advantages(rewards, groups, "pass_at_k", 4)
    order = torch.randperm(4800, generator=generator)
    torch.testing.assert_close(
        outcome_advantages(rewards[order], groups[order], "pass_at_k", 4), whole[order], atol=1e-6, rtol=0
    )
    for group in range(0, 300, 50):
        rows = groups == group
        alone = outcome_advantages(rewards[rows], groups[rows], "pass_at_k", 4)
        torch.testing.assert_close(alone, whole[rows], atol=0, rtol=0)


def test_a_set_of_all_rollouts_is_refused() -> None:
    settings = ["method=grpo", "method.outcome_advantage=pass_at_k", "train.rollouts_per_problem=4"]
    with pytest.raises(ConfigError, match=r"method\.pass_at_k must be below .* \(4\), but is 4"):
        load_config(ROOT / "configs" / "demo_arithmetic.yaml", settings)
