"""Credit transforms that bound, gate or mark step rewards, against hand-computed values and plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import MethodConfig
from airls_ray.credit.formulas import step_advantages
from airls_ray.credit.own import transformed
from airls_ray.credit.transforms import capo, clip, delta, gated, renorm

# Rollout 0 is right and has three steps, 1 is wrong and has one, 2 has none, 3 is half right and has two.
REWARDS = torch.tensor([0.9, 0.25, 0.5, 0.75, 0.125, 1.0])
ROWS = torch.tensor([0, 0, 0, 1, 3, 3])
OUTCOMES = torch.tensor([1.0, 0.0, 1.0, 0.5])

BY_HAND: dict[str, tuple[dict[str, Any], list[float]]] = {
    "clip": ({"threshold": 0.5}, [0.0, -0.25, 0.0, 0.0, -0.375, 0.0]),
    # 0.9 - 0.25, then the last but one by itself, then the last; one step alone is the last
    "delta": ({}, [0.65, 0.25, 0.0, 0.0, 0.125, 0.0]),
    "gated": ({"threshold": 0.5}, [0.9, 0.25, 0.5, 0.0, 0.125, 1.0]),
    "renorm": ({}, [0.9, 0.25, 0.5, -0.25, -0.375, 0.5]),
    "capo": ({"whole": 2.0, "penalty": 1.0, "threshold": 0.5}, [2.0, 1.0, 2.0, 0.0, 0.0, 1.0]),
}


def by_name(name: str, **options: Any) -> list[float]:
    known = {
        "step_rows": ROWS,
        "groups": torch.tensor([0, 0, 1, 1]),
        "outcomes": OUTCOMES,
        "learns": torch.ones(4, dtype=torch.bool),
    }
    one = {"name": name, "options": options}
    config = MethodConfig.model_validate({"name": "grpo", "step_transforms": [one]})
    values: list[float] = transformed(REWARDS, config.transforms, known).tolist()
    return values


@pytest.mark.parametrize("name", BY_HAND)
def test_a_transform_of_a_configuration_by_hand(name: str) -> None:
    options, wanted = BY_HAND[name]
    assert by_name(name, **options) == pytest.approx(wanted)


def many(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """3,000 rollouts of 0 to 12 steps: rewards in [0, 1], rows and outcomes, float64."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 13, (3000,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(3000), lengths)
    rewards = torch.rand(rows.numel(), generator=generator, dtype=torch.float64)
    return rewards, rows, torch.randint(0, 2, (3000,), generator=generator).double()


def loop(rewards: Tensor, rows: Tensor, rule: Callable[[list[float], int], list[float]]) -> list[float]:
    """Apply a rule to each rollout's list of rewards."""
    of_rows: dict[int, list[float]] = {}
    for row, reward in zip(rows.tolist(), rewards.tolist(), strict=True):
        of_rows.setdefault(row, []).append(reward)
    return [value for row in sorted(of_rows) for value in rule(of_rows[row], row)]


def delta_rule(values: list[float], row: int) -> list[float]:
    if len(values) == 1:
        return [0.0]
    pairs = [values[k] - values[k + 1] for k in range(len(values) - 2)]
    return [*pairs, values[-2], 0.0]


def test_transforms_of_many_rollouts_are_a_loop_over_each() -> None:
    rewards, rows, outcomes = many()
    right = outcomes.tolist()

    def gate(values: list[float], row: int) -> list[float]:
        return values if right[row] == 1.0 else [0.0] * len(values)

    def judge(values: list[float], row: int) -> list[float]:
        return [2.0 * right[row] - (1.0 if value < 0.5 else 0.0) for value in values]

    assert delta.transform(rewards, rows).tolist() == loop(rewards, rows, delta_rule)
    assert gated.transform(rewards, rows, outcomes).tolist() == loop(rewards, rows, gate)
    assert capo.transform(rewards, rows, outcomes).tolist() == loop(rewards, rows, judge)


def test_the_reward_to_go_of_a_delta_is_the_steps_own_reward() -> None:
    """Whatever follows; the last step has none, since it ends in the answer."""
    rewards, rows, _ = many()
    mean, std = delta.transform(rewards, rows).mean(), delta.transform(rewards, rows).std()
    one_group = torch.zeros(3000, dtype=torch.int64)
    to_go = step_advantages(delta.transform(rewards, rows), rows, one_group, per_step=False)
    last = torch.cat([rows[1:] != rows[:-1], torch.tensor([True])])
    ends = torch.bincount(rows, minlength=3000).cumsum(0)[rows]
    steps_to_go = ends - torch.arange(rows.numel())
    raw = to_go * (std + 1e-6) + mean * steps_to_go
    torch.testing.assert_close(raw, torch.where(last, torch.zeros_like(rewards), rewards))


def test_repeating_steps_pays_nothing_after_clip_and_delta() -> None:
    """Forty good steps instead of four: plain rewards sum to ten times as much."""
    few, more = (torch.full((count,), 0.9) for count in (4, 40))
    sums = []
    for rewards in (few, more):
        rows = torch.zeros(rewards.numel(), dtype=torch.int64)
        sums.append([float(clip.transform(rewards, 0.5).sum()), float(delta.transform(rewards, rows).sum())])
    assert sums[0] == sums[1] == pytest.approx([0.0, 0.9])


def test_renorm_has_the_outcomes_sign() -> None:
    rewards, rows, outcomes = many()
    values = renorm.transform(rewards, rows, outcomes)
    right = outcomes[rows] == 1.0
    assert bool((values[right] >= 0.0).all()) and bool((values[~right] <= 0.0).all())
    torch.testing.assert_close(values[right], rewards[right])


@pytest.mark.parametrize("name", BY_HAND)
def test_a_transform_keeps_the_type_and_takes_no_steps(name: str) -> None:
    module = {"clip": clip, "delta": delta, "gated": gated, "renorm": renorm, "capo": capo}[name]
    known: dict[str, Any] = {"step_rows": ROWS, "outcomes": OUTCOMES}
    taken = {key: known[key] for key in known if key in module.transform.__annotations__}
    options = BY_HAND[name][0]
    assert module.transform(REWARDS, **taken, **options).dtype == torch.float32  # type: ignore[operator]
    empty = {**taken, "step_rows": ROWS[:0]} if "step_rows" in taken else taken
    assert module.transform(REWARDS[:0], **empty, **options).numel() == 0  # type: ignore[operator]
