"""Outcome terms that price length, against hand-computed values and plain loops over responses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import Config, MethodConfig
from airls_ray.credit.own import with_terms
from airls_ray.credit.terms import cosine, kimi_length, laser_d

LIMIT = 100
# Two groups of four: lengths 20 to 60, and four equal ones.
OUTCOMES = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
LENGTHS = torch.tensor([20, 30, 60, 50, 40, 40, 40, 40])
KNOWN: dict[str, Any] = {
    "outcomes": OUTCOMES,
    "groups": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    "lengths": LENGTHS,
    "truncated": torch.tensor([False] * 7 + [True]),
    "unanswered": torch.zeros(8, dtype=torch.bool),
    "max_response_tokens": LIMIT,
}


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        # 0.5 - (length - 20) / 40; wrong ones no more than 0; the second group has one length
        ({"name": "kimi_length", "weight": 0.4}, [0.2, 0.0, -0.2, -0.1, 0.0, 0.0, 0.0, 0.0]),
        ({"name": "laser", "weight": 0.5}, [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ({"name": "laser", "options": {"target_tokens": 40}}, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_a_term_of_a_configuration_by_hand(term: dict[str, Any], wanted: list[float]) -> None:
    config = MethodConfig.model_validate({"name": "grpo", "outcome_terms": [term]})
    got = with_terms(torch.zeros(8), config.terms, KNOWN)
    assert got.tolist() == pytest.approx(wanted)
    assert got.dtype == torch.float32


def test_the_cosine_reward_at_its_ends_and_in_the_middle() -> None:
    lengths = torch.tensor([0, 50, 99, 0, 50, 99, 100, 30])
    outcomes = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    truncated = torch.tensor([False] * 7 + [True])
    near = (1 + math.cos(math.pi * 0.99)) / 2
    wanted = [2.0, 1.5, 1.0 + near, -10.0, -5.0, -10.0 * near, -10.0, -10.0]
    assert cosine.term(outcomes, lengths, truncated, LIMIT).tolist() == pytest.approx(wanted, rel=1e-5)
    own = cosine.term(
        outcomes, lengths, truncated, LIMIT, right=[1.0, 0.5], wrong=[-1.0, -0.5], truncated_value=-2.0
    )
    assert own[[0, 3, 7]].tolist() == [1.0, -1.0, -2.0]


def many(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """400 groups of 8 of different difficulty, mixed in the table."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(3200) % 400
    rate = torch.rand(400, generator=generator)[groups]
    outcomes = (torch.rand(3200, generator=generator) < rate).float()
    return outcomes, groups, torch.randint(1, 1000, (3200,), generator=generator)


def members(groups: Tensor) -> list[list[int]]:
    return [(groups == group).nonzero().flatten().tolist() for group in range(int(groups.max()) + 1)]


def test_kimis_reward_of_many_groups_is_a_loop_over_each() -> None:
    outcomes, groups, lengths = many(0)
    wanted = torch.zeros(3200)
    for rows in members(groups):
        low, high = min(lengths[rows].tolist()), max(lengths[rows].tolist())
        for row in rows:
            value = 0.5 - (int(lengths[row]) - low) / (high - low)
            wanted[row] = value if outcomes[row] == 1 else min(0.0, value)
    torch.testing.assert_close(kimi_length.term(outcomes, groups, lengths), wanted)


@pytest.mark.parametrize("least", [0, 300])
def test_laser_ds_targets_are_those_of_a_search_over_all_lengths(least: int) -> None:
    outcomes, groups, lengths = many(1)
    by_level: dict[int, list[int]] = {0: [], 1: [], 2: []}
    level = {}
    for rows in members(groups):
        right = int(outcomes[rows].sum())
        level.update(dict.fromkeys(rows, 2 if 3 * right >= 16 else 1 if 3 * right >= 8 else 0))
        by_level[level[rows[0]]] += lengths[rows].tolist()
    targets = {}
    for name, at_least in ((0, 1), (1, 2), (2, 5)):
        enough = [
            length
            for length in range(1, 1001)
            if at_least * sum(one <= length for one in by_level[name]) >= len(by_level[name])
        ]
        targets[name] = max(enough[0], least)
    wanted = [float(outcomes[row] == 1 and int(lengths[row]) <= targets[level[row]]) for row in range(3200)]
    got = laser_d.term(outcomes, groups, lengths, 1000, least_tokens=least)
    assert got.tolist() == wanted
    assert targets[2] < targets[1] < targets[0]


@pytest.mark.parametrize(
    ("right", "rewarded"),
    [
        ([10, 20, 30, 40, 50, 60], [10, 20]),  # easy, C = 4: 4 * 2/6 is the first that is 1 or more
        ([20, 30, 50, 60], [20]),  # 4/6 is easy, too
        ([20, 30, 40], [20, 30]),  # medium, C = 2: 2 * 3/6
        ([30, 40], [30]),  # 2/6 is medium, too
        ([60], [60]),  # hard: any length
    ],
)
def test_laser_ds_target_is_a_length_that_is_reached(right: list[int], rewarded: list[int]) -> None:
    lengths = torch.arange(10, 70, 10)
    outcomes = torch.tensor([float(length in right) for length in lengths.tolist()])
    got = laser_d.term(outcomes, torch.zeros(6, dtype=torch.int64), lengths, LIMIT)
    assert lengths[got == 1.0].tolist() == rewarded


def test_laser_d_takes_the_limit_where_no_response_is_known_to_be_enough() -> None:
    """Of a pair a third is none: nothing is asked of medium problems."""
    outcomes, lengths = torch.tensor([1.0, 0.0]), torch.tensor([90, 10])
    assert laser_d.term(outcomes, torch.tensor([0, 0]), lengths, LIMIT).tolist() == [1.0, 0.0]
    third = torch.tensor([1.0, 0.0, 0.0])
    same = torch.zeros(3, dtype=torch.int64)
    assert laser_d.term(third, same, torch.tensor([50, 40, 60]), LIMIT).tolist() == [1.0, 0.0, 0.0]
    assert laser_d.term(torch.zeros(0), same[:0], same[:0], LIMIT).tolist() == []


def test_terms_alone_may_be_the_reward() -> None:
    method = {"name": "grpo", "outcome_weight": 0.0}
    config = Config.model_validate({"method": {**method, "outcome_terms": ["cosine"]}})
    assert [one.name for one in config.method.terms] == ["cosine"]
    with pytest.raises(ValueError, match="no reward is left"):
        Config.model_validate({"method": method})
