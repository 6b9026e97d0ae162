"""Passes without gradients: equal rows are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import ROLLOUTS
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.prm.scores import score_steps
from tests.tiny import policy_module
from tests.unit.learning.fakes import FakeRank, learner, on_policy

ROWS = [3, 0, 3, 1, 0, 3, 2]
"""Of four rollouts: one three times, one twice."""


class Counting(TorchEngine):
    """Counts the response tokens that it passes."""

    tokens = 0

    def forward(self, inputs: Any, **options: Any) -> Any:
        found = super().forward(inputs, **options)
        self.tokens += found[0].numel()
        return found


def repeated(folder: Path) -> pa.Table:
    return on_policy(folder).take(pa.array(ROWS))


def logprobs(engine: TorchEngine, table: pa.Table) -> pa.Table:
    return token_logprobs(engine, table, temperature=0.8, tokens_per_microbatch=30, pad_id=0)


def test_an_equal_row_costs_no_pass(folder: Path) -> None:
    engine = Counting(policy_module(folder), learner())
    logprobs(engine, repeated(folder))
    distinct = on_policy(folder).slice(0, 4)["response"].to_pylist()
    assert engine.tokens == sum(map(len, distinct))


def test_every_row_has_the_values_of_a_pass_of_its_own(folder: Path) -> None:
    engine = TorchEngine(policy_module(folder), learner())
    found = merge_parts([logprobs(engine, repeated(folder))])["logprobs"].to_pylist()
    for row, at in zip(found, ROWS, strict=True):
        alone = logprobs(engine, on_policy(folder).slice(at, 1))["logprobs"][0].as_py()
        assert row == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_equal_rows_are_known_by_the_rank_that_computed_them(folder: Path, ranks: int) -> None:
    parts = [
        logprobs(FakeRank(policy_module(folder), learner(), rank, ranks), repeated(folder))
        for rank in range(ranks)
    ]
    owners = {row: rank for rank, part in enumerate(parts) for row in part["row"].to_pylist()}
    assert sorted(owners) == list(range(len(ROWS)))
    for at in set(ROWS):
        assert len({owners[row] for row, other in enumerate(ROWS) if other == at}) == 1


@pytest.mark.parametrize("unit", ["step", "token"])
def test_rewards_of_equal_rows_compare_with_their_own_log_probabilities(folder: Path, unit: Any) -> None:
    """Sampled twice, the same response may stand at two log-probabilities."""
    table = repeated(folder)
    moved = [[value - row for value in values] for row, values in enumerate(table["logprobs"].to_pylist())]
    place = table.column_names.index("logprobs")
    table = table.set_column(
        place, ROLLOUTS.field("logprobs"), pa.array(moved, ROLLOUTS.field("logprobs").type)
    )
    settings = {"reward": "log_odds", "parameterisation": "log_prob", "learner": learner().model_dump()}
    config = PRMConfig(**settings, action=unit, reward_unit=unit)
    engine = TorchEngine(policy_module(folder), learner())
    merged = merge_parts([score_steps(engine, table, None, config, temperature=0.8, pad_id=0)])
    lengths = [len(values) for values in moved]
    for row, rewards in enumerate(merged["rewards"].to_pylist()):
        # The PRM is the policy: the log-odds are what was taken off each of the row's tokens.
        assert sum(rewards) == pytest.approx(row * lengths[row], abs=1e-3)
