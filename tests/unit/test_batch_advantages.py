"""Advantages over the whole batch, and of each reward by itself, against plain loops in float64."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from airls_ray.config import load_config
from airls_ray.config.reward_section import RewardConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.errors import ConfigError
from airls_ray.grading.reward_pool import RewardValue
from airls_ray.grading.reward_table import add_rewards
from airls_ray.learning.advantages import assign_credit
from tests.unit.test_advantages import LIMIT, grades_of, with_outcomes

ROLLOUTS = 1000
"""200 groups of five."""


def table_of(seed: int) -> tuple[pa.Table, list[float]]:
    draw = random.Random(seed)
    outcomes = [float(draw.random() < 0.3) for _ in range(ROLLOUTS)]
    return with_outcomes(outcomes), outcomes


def whitened_over_tokens(values: Sequence[float], table: pa.Table) -> list[float]:
    """Mean 0 and deviation 1 (Bessel's correction) over all tokens of the rollouts."""
    tokens = [
        value
        for value, row in zip(values, table["response"].to_pylist(), strict=True)
        for _ in range(len(row))
    ]
    mean, deviation = statistics.fmean(tokens), statistics.stdev(tokens)
    return [(value - mean) / deviation for value in values]


def of_groups(values: Sequence[float]) -> list[float]:
    """GRPO's advantage in groups of five."""
    result = []
    for start in range(0, len(values), 5):
        group = values[start : start + 5]
        deviation = statistics.stdev(group)
        result += [(one - statistics.fmean(group)) / deviation if deviation else 0.0 for one in group]
    return result


def found(table: pa.Table, grades: pa.Table, **fields: Any) -> list[float]:
    """The advantage of each rollout, the same at all of its steps."""
    method = MethodConfig(name="grpo", **fields)
    advantages = assign_credit(table, grades, None, method, max_response_tokens=LIMIT).to_pylist()
    assert all(len(set(row)) == 1 for row in advantages)
    return [row[0] for row in advantages]


def test_reinforce_plus_plus_compares_with_the_batch_alone() -> None:
    """arXiv 2501.03262: the outcome, brought to mean 0 and deviation 1 over the tokens of the batch."""
    table, outcomes = table_of(0)
    got = found(table, grades_of(table), outcome_advantage="none", whiten=True)
    assert got == pytest.approx(whitened_over_tokens(outcomes, table), abs=1e-4)


def test_gdpo_normalises_each_reward_by_itself_before_the_sum() -> None:
    """arXiv 2601.05242: the outcome, a term that is 0 or 1 by length, and an own reward of another scale."""
    table, outcomes = table_of(1)
    draw = random.Random(2)
    said = [draw.gauss(50.0, 20.0) for _ in range(ROLLOUTS)]
    own = (
        RewardConfig(name="length", normalise="group", weight=0.3),
        [RewardValue(value) for value in said],
    )
    steps = [len(ends) for ends in table["step_ends"].to_pylist()]
    grades = add_rewards(grades_of(table), table["group"].to_pylist(), steps, {"length": own})
    lengths = [len(row) for row in table["response"].to_pylist()]
    short = [float(one == 1 and length <= 5) for one, length in zip(outcomes, lengths, strict=True)]
    assert 0 < sum(short) < sum(outcomes)
    columns = zip(of_groups(outcomes), of_groups(short), of_groups(said), strict=True)
    summed = [2.0 * a + 0.5 * b + 0.3 * c for a, b, c in columns]
    got = found(
        table,
        grades,
        outcome_weight=2.0,
        outcome_terms=[{"name": "laser", "weight": 0.5, "options": {"target_tokens": 5}}],
        separate_rewards=True,
        whiten=True,
    )
    assert got == pytest.approx(whitened_over_tokens(summed, table), abs=1e-4)


def test_separate_rewards_want_own_rewards_normalised_before_a_run() -> None:
    separate = "method.separate_rewards=true"
    with pytest.raises(
        ConfigError, match=r"the reward length of task\.reward does not: set normalise: group"
    ):
        load_config(None, [separate, "task.reward=[{name: length}]"])
    load_config(None, [separate, "task.reward=[{name: length, normalise: group}]"])
