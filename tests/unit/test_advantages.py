"""Credit assignment on tables: what each method's fields make of outcomes and PRM rewards."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import MethodConfig
from airls_ray.data.schemas import GRADES
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.group_filter import rows_that_learn
from tests.tiny import make_rollouts

LIMIT = 8


def grades_of(rollouts: pa.Table, answers: list[str | None] | None = None) -> pa.Table:
    size = rollouts.num_rows
    columns = {
        "outcome": rollouts["outcome"],
        "answer": pa.array(answers or ["1"] * size, pa.string()),
        "step_truth": pa.nulls(size, GRADES.field("step_truth").type),
        "status": pa.array(["graded"] * size).dictionary_encode().cast(GRADES.field("status").type),
    }
    return pa.table(columns).cast(GRADES)


def scores_of(rewards: list[list[float]]) -> pa.Table:
    return pa.table({"rewards": pa.array(rewards, pa.list_(pa.float32()))})


def advantages(rollouts: pa.Table, scores: pa.Table | None, **fields: Any) -> list[list[float]]:
    grades = grades_of(rollouts, fields.pop("answers", None))
    result = assign_credit(rollouts, grades, scores, MethodConfig(**fields), max_response_tokens=LIMIT)
    values: list[list[float]] = result.to_pylist()
    return values


@pytest.fixture
def rollouts() -> pa.Table:
    """One group of two rollouts with two steps each: right and wrong."""
    table = make_rollouts(1, 2)
    place = table.column_names.index("outcome")
    return table.set_column(place, table.schema.field(place), pa.array([1.0, 0.0], pa.float32()))


def test_repirls_reward_is_the_outcome_plus_alpha_times_the_mean_over_tokens(rollouts: pa.Table) -> None:
    lengths = [len(row) for row in rollouts["response"].to_pylist()]
    tokens = [[float(i) for i in range(n)] for n in lengths]
    total = [1.0 + 0.05 * (lengths[0] - 1) / 2, 0.05 * (lengths[1] - 1) / 2]
    got = advantages(rollouts, scores_of(tokens), name="repirl")
    for values, own, other in zip(got, total, total[::-1], strict=True):
        assert values == pytest.approx([own - other] * len(values), abs=1e-5)


def test_primes_advantage_is_both_leave_one_outs_whitened_over_tokens(rollouts: pa.Table) -> None:
    lengths = [len(row) for row in rollouts["response"].to_pylist()]
    rewards = [[0.1 * (i + 1) for i in range(n)] for n in lengths]
    means = [sum(row) / len(row) for row in rewards]
    raw = []
    for row, other, outcome in zip(rewards, means[::-1], (1.0, -1.0), strict=True):
        relative = [value - other for value in row]
        raw += [outcome + sum(relative[i:]) for i in range(len(row))]
    flat = torch.tensor(raw, dtype=torch.float64)
    wanted = ((flat - flat.mean()) / flat.std()).tolist()
    got = advantages(rollouts, scores_of(rewards), name="prime", step_scale="none")
    assert [value for row in got for value in row] == pytest.approx(wanted, abs=1e-4)


def test_pure_blames_the_worst_step(rollouts: pa.Table) -> None:
    """The first rollout's second step is bad: with a cold T, credit to go is the same before it and at it."""
    got = advantages(
        rollouts, scores_of([[0.9, 0.1], [0.9, 0.9]]), name="pure", step_weight=1.0, min_form_temperature=0.01
    )
    assert got[0][0] == pytest.approx(2 * got[0][1], rel=0.3)  # two baselines against one, equal reward
    assert got[0][1] < got[1][1]


def test_an_orm_gives_the_whole_rollout_its_last_reward(rollouts: pa.Table) -> None:
    got = advantages(rollouts, scores_of([[0.2, 0.9], [0.3, 0.4]]), name="orm", outcome_weight=0.0)
    assert got[0] == pytest.approx([0.5, 0.5])
    assert got[1] == pytest.approx([-0.5, -0.5])


def test_training_on_the_prm_alone_ignores_the_outcome_and_punishes_a_missing_answer(
    rollouts: pa.Table,
) -> None:
    fields = {
        "name": "repirl",
        "outcome_weight": 0.0,
        "trajectory_weight": 1.0,
        "format_penalty": 1.0,
        "answers": ["4", None],
    }
    got = advantages(rollouts, scores_of([[0.5, 0.5], [0.5, 0.5]]), **fields)
    assert got[0] == pytest.approx([1.0, 1.0])
    assert got[1] == pytest.approx([-1.0, -1.0])


def test_a_response_that_uses_its_buffer_up_loses_reward(rollouts: pa.Table) -> None:
    lengths = [len(row) for row in rollouts["response"].to_pylist()]
    rewards = [1.0 - max(0, lengths[0] - 4) / 4, -max(0, lengths[1] - 4) / 4]
    got = advantages(rollouts, None, name="rloo", overlong_buffer_tokens=4)
    assert got[0] == pytest.approx([rewards[0] - rewards[1]] * 2)


def test_whitened_steps_count_by_their_tokens(rollouts: pa.Table) -> None:
    ends = rollouts["step_ends"].to_pylist()
    got = advantages(rollouts, scores_of([[1.0, 0.0], [0.5, 0.5]]), name="pure", whiten=True)
    flat = []
    for values, row in zip(got, ends, strict=True):
        sizes = [row[0], row[1] - row[0]]
        flat += [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]
    whole = torch.tensor(flat)
    assert float(whole.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(whole.std()) == pytest.approx(1.0, abs=1e-4)


def with_outcomes(outcomes: list[float]) -> pa.Table:
    table = make_rollouts(len(outcomes) // 5, 5)
    place = table.column_names.index("outcome")
    return table.set_column(place, table.schema.field(place), pa.array(outcomes, pa.float32()))


def learned_rows(table: pa.Table, **fields: Any) -> list[int]:
    rows: list[int] = rows_that_learn(table, MethodConfig(name="grpo", **fields).filters).tolist()
    return rows


def test_an_accuracy_band_includes_its_bounds() -> None:
    """Means 0, 1/5, 4/5 and 1 over five rollouts each; the band is 0.2 to 0.8."""
    rights = (0, 1, 4, 5)
    table = with_outcomes([float(i < right) for right in rights for i in range(5)])
    assert learned_rows(table, accuracy_band=(0.2, 0.8)) == list(range(5, 15))


def test_without_a_filter_every_row_learns() -> None:
    assert learned_rows(with_outcomes([1.0] * 5)) == list(range(5))


def test_constant_groups_and_band_filter_together() -> None:
    table = with_outcomes([0.5] * 5 + [1.0, 0.0, 0.0, 0.0, 1.0])
    assert learned_rows(table, accuracy_band=(0.3, 0.7)) == list(range(10))
    both = learned_rows(table, accuracy_band=(0.3, 0.7), drop_constant_groups=True)
    assert both == list(range(5, 10))


def test_whitening_is_over_the_tokens_that_learn() -> None:
    """A group outside the accuracy band is left out of the update, and must not shift the others."""
    table = make_rollouts(4, 4)
    outcomes = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    place = table.column_names.index("outcome")
    table = table.set_column(place, table.schema.field(place), pa.array(outcomes, pa.float32()))
    lengths = [len(row) for row in table["response"].to_pylist()]
    generator = torch.Generator().manual_seed(0)
    scores = scores_of([torch.randn(n, generator=generator).tolist() for n in lengths])
    band = (0.3, 0.8)
    found = advantages(table, scores, name="prime", accuracy_band=band)
    rows = learned_rows(table, accuracy_band=band)
    assert 0 < len(rows) < 16
    learned = torch.tensor([value for row in rows for value in found[row]], dtype=torch.float64)
    assert float(learned.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(learned.std()) == pytest.approx(1.0, abs=1e-5)


def test_reinforce_plus_plus_with_a_baseline_is_a_setting() -> None:
    """arXiv 2501.03262: outcome less the group's mean, to mean 0 and deviation 1 over the batch's tokens."""
    generator = torch.Generator().manual_seed(0)
    outcomes = torch.randint(0, 2, (200,), generator=generator).double().tolist()
    table = with_outcomes(outcomes)
    flat, rows = [], []
    for row, ends in enumerate(table["step_ends"].to_pylist()):
        group = outcomes[row // 5 * 5 : row // 5 * 5 + 5]
        flat += [outcomes[row] - sum(group) / 5] * ends[-1]
        rows += [row] * ends[-1]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in flat) / (len(flat) - 1))
    wanted = {row: (one - mean) / deviation for row, one in zip(rows, flat, strict=True)}
    found = advantages(table, None, name="grpo", outcome_advantage="dr_grpo", whiten=True)
    for row, values in enumerate(found):
        assert values == pytest.approx([wanted[row]] * len(values), abs=1e-4)
