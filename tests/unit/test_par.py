"""PAR's centred sigmoid, against plain loops over pairs of a group."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.credit.terms import par
from airls_ray.errors import DoorError
from airls_ray.learning.try_method import try_method
from tests.unit.test_advantages import advantages, scores_of
from tests.unit.test_row_filters import with_outcomes


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def preference(own: float, others: list[float]) -> float:
    return sum(sigmoid(own - other) for other in others) / len(others)


def test_a_rollout_is_compared_with_the_others_of_its_group() -> None:
    """R is 1, -1 and 3 in one group; a rollout alone, and two that are equal, in the others."""
    rewards = torch.tensor([2.0, 0.0, -1.0, 4.0, 2.0, 5.0, 0.5, 0.5])
    rows = torch.tensor([0, 0, 1, 2, 2, 3, 4, 5])
    groups = torch.tensor([0, 0, 0, 1, 2, 2])
    wanted = [preference(1, [-1, 3]), preference(-1, [1, 3]), preference(3, [1, -1]), 0.5, 0.5, 0.5]
    assert par.term(rewards, rows, groups).tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("reduction", "of"), [("mean", lambda values: sum(values) / len(values)), ("sum", sum), ("min", min)]
)
def test_preferences_in_many_mixed_groups_are_a_loop_over_pairs(reduction: Any, of: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.cat([torch.arange(400).repeat(7), torch.randint(0, 400, (400,), generator=generator)])
    lengths = torch.randint(1, 12, (3200,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(3200), lengths)
    rewards = torch.randn(rows.numel(), generator=generator)
    whole = [of(part.tolist()) for part in rewards.double().split(lengths.tolist())]
    of_group: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        of_group.setdefault(group, []).append(row)
    wanted = [
        preference(whole[row], [whole[other] for other in of_group[group] if other != row])
        for row, group in enumerate(groups.tolist())
    ]
    found = par.term(rewards, rows, groups, reduction=reduction)
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-6, rtol=0.0)


def test_the_prms_rewards_reach_a_term() -> None:
    """Means of the rollouts are 2, 0, 0, 0 and -2, and the outcome has no weight."""
    table = with_outcomes([1.0] * 5)
    scores = scores_of([[1.0, 3.0], [0.0], [1.0, 0.0, -1.0], [-1.0, 1.0], [-2.0]])
    whole = [2.0, 0.0, 0.0, 0.0, -2.0]
    total = [preference(own, whole[:at] + whole[at + 1 :]) for at, own in enumerate(whole)]
    found = advantages(
        table,
        scores,
        name="grpo",
        prm_objective="frozen",
        outcome_terms=["par"],
        outcome_weight=0.0,
        outcome_advantage="dr_grpo",
    )
    assert [values[0] for values in found] == pytest.approx([one - 0.5 for one in total], abs=1e-6)


def test_a_term_that_needs_a_prm_is_refused_without_one_before_a_run() -> None:
    fields: dict[str, Any] = {"name": "grpo", "outcome_terms": ["par"]}
    with pytest.raises(DoorError, match=r"^method\.outcome_terms: par takes 'rewards', .*; name a PRM$"):
        try_method(MethodConfig(**fields), PRMConfig(), 8, reference=False)
    try_method(MethodConfig(**fields, prm_objective="frozen"), PRMConfig(), 8, reference=False)
