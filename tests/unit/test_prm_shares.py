"""PRM updates that learn from one share of the iteration's problems each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.data.schemas import TOKEN_LOGPROBS
from airls_ray.prm.batch import PRMSource, build_prm_batch
from airls_ray.prm.shares import problem_shares
from airls_ray.prm.update import update_prm
from tests.tiny import make_rollouts, make_traces
from tests.unit.test_prm_update import engine_of, logprobs_of, settings


def numbered(table: pa.Table) -> pa.Table:
    """Log-probabilities that tell whose row they are."""
    lengths = map(len, table["response"].to_pylist())
    values = [[-float(row)] * length for row, length in enumerate(lengths)]
    return pa.table({"logprobs": pa.array(values)}).cast(TOKEN_LOGPROBS)


def source(groups: int, *, seed: int = 0) -> PRMSource:
    rollouts, traces = make_rollouts(groups, 4, seed=seed), make_traces(groups, seed=seed)
    return PRMSource(rollouts, traces, numbered(traces), numbered(rollouts), rollouts["outcome"])


def problems_of(one: PRMSource) -> set[str]:
    return {*one.rollouts["problem_id"].to_pylist(), *one.traces["problem_id"].to_pylist()}


def real_source(folder: Path) -> PRMSource:
    rollouts, traces = make_rollouts(6, 4), make_traces(6)
    return PRMSource(rollouts, traces, logprobs_of(folder, traces), logprobs_of(folder, rollouts))


def weights_after(folder: Path, shares: list[Any], turns: list[list[int]], **changes: Any) -> list[Any]:
    """The PRM's weights after calls of `update_prm`: the batches of each call, one update for each."""
    config = settings(**changes)
    engine = engine_of(folder, config)
    batches = [build_prm_batch(share, config) for share in shares]
    for turn in turns:
        chosen = [batches[at] for at in dict.fromkeys(turn)]
        update_prm(engine, chosen, config, temperature=1.0, pad_id=0, updates=len(turn))
    return [parameter.detach().clone() for parameter in engine.module.parameters()]


def test_one_share_is_the_sources_as_they_are() -> None:
    sources = [source(3), source(2)]
    (only,) = problem_shares(sources, 1)
    assert all(one is other for one, other in zip(only, sources, strict=True))


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_every_row_is_in_one_share(shares: int) -> None:
    whole = source(5)
    parts = [part for (part,) in problem_shares([whole], shares)]
    assert len(parts) == shares
    for name in ("rollouts", "traces"):
        joined = pa.concat_tables([getattr(part, name) for part in parts])
        assert joined.combine_chunks().equals(getattr(whole, name).combine_chunks())


def test_a_rows_log_probabilities_and_outcome_come_along() -> None:
    whole = source(5)
    _, (part,), _ = problem_shares([whole], 3)
    ids = whole.rollouts["problem_id"].to_pylist()
    rows = [row for row, name in enumerate(ids) if name in problems_of(part)]
    assert part.rollout_logprobs is not None
    assert [-values[0] for values in part.rollout_logprobs["logprobs"].to_pylist()] == rows
    assert part.outcomes.to_pylist() == [whole.outcomes.to_pylist()[row] for row in rows]
    assert [-values[0] for values in part.trace_logprobs["logprobs"].to_pylist()] == [
        row for row, name in enumerate(whole.traces["problem_id"].to_pylist()) if name in problems_of(part)
    ]


def test_a_problem_is_in_the_same_share_of_every_source() -> None:
    """Replayed rollouts stand beside those of now."""
    shares = problem_shares([source(3), source(6, seed=1)], 2)
    seen = [set().union(*map(problems_of, share)) for share in shares]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == problems_of(source(6))


def test_every_share_has_its_part_of_each_source() -> None:
    """Else some updates would learn from old rollouts alone."""
    now, old = source(4), source(12, seed=1)  # the first four of the old ones are those of now
    shares = problem_shares([now, old], 4)
    assert [len(problems_of(first)) for first, _ in shares] == [1, 1, 1, 1]
    assert [len(problems_of(second) - problems_of(first)) for first, second in shares] == [2, 2, 2, 2]


def test_there_are_no_more_shares_than_problems() -> None:
    assert len(problem_shares([source(2)], 4)) == 2


def test_updates_take_the_shares_in_turns(folder: Path) -> None:
    shares = problem_shares([real_source(folder)], 2)
    together = weights_after(folder, shares, [[0, 1, 0]])
    one_by_one = weights_after(folder, shares, [[0], [1], [0]])
    for mine, other in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_a_share_is_weighed_as_a_batch_of_its_own(folder: Path) -> None:
    config = settings()
    for share in problem_shares([real_source(folder)], 3):
        batch = build_prm_batch(share, config)
        owner = torch.repeat_interleave(torch.arange(batch.weights.rows), batch.weights.lengths)
        expert = batch.is_expert[owner]
        assert float(batch.weights.values[expert].sum()) == pytest.approx(0.5)
        assert float(batch.weights.values[~expert].sum()) == pytest.approx(0.5)


def test_metrics_are_means_over_the_shares_first_passes(folder: Path) -> None:
    config = settings()
    batches = [build_prm_batch(share, config) for share in problem_shares([real_source(folder)], 2)]
    engine = engine_of(folder, config)
    alone = [update_prm(engine, [one], config, temperature=1.0, pad_id=0)["prm/loss"] for one in batches]
    metrics = update_prm(engine_of(folder, config), batches, config, temperature=1.0, pad_id=0, updates=4)
    assert metrics["prm/loss"] == pytest.approx(sum(alone) / 2, abs=1e-6)
    assert metrics["prm/updates"] == 4.0


def test_the_trust_region_is_of_the_iterations_start(folder: Path) -> None:
    """The second share's outputs are remembered before the first share's update."""
    config = settings(drift_penalty=1.0)
    batches = [build_prm_batch(share, config) for share in problem_shares([real_source(folder)], 2)]
    metrics = update_prm(engine_of(folder, config), batches, config, temperature=1.0, pad_id=0, updates=2)
    assert metrics["prm/output_drift"] > 0.0


def test_shares_of_an_objective_without_traces(folder: Path) -> None:
    rollouts = make_rollouts(6, 4)
    empty = TOKEN_LOGPROBS.empty_table()
    whole = PRMSource(rollouts, make_traces(6).slice(0, 0), empty, logprobs_of(folder, rollouts))
    shares = problem_shares([whole], 3)
    assert [len(set(one.rollouts["problem_id"].to_pylist())) for (one,) in shares] == [2, 2, 2]
