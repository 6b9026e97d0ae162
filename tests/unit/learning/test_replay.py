"""The replay buffer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from actors.learn.prm_learner import PRMLearner
from airls_ray.config import load_config
from airls_ray.learning.replay import ReplayBuffer
from tests.tiny import make_rollouts, make_traces


# ------------------------------------------------------------------------------------ replay
def test_the_buffer_keeps_the_last_iterations_only() -> None:
    buffer = ReplayBuffer(2)
    for iteration in range(4):
        buffer.add(iteration, make_rollouts(3, 2, seed=iteration), make_traces(3))
    assert len(buffer) == 2
    sample = buffer.sample(100, 0.5, seed=0)
    assert sample is not None
    kept = pa.concat_tables([make_rollouts(3, 2, seed=2), make_rollouts(3, 2, seed=3)])
    assert sorted(map(str, sample.rollouts["response"].to_pylist())) == sorted(
        map(str, kept["response"].to_pylist())
    )


def test_a_sample_has_whole_groups_in_the_share_that_was_asked_for() -> None:
    buffer = ReplayBuffer(3)
    for iteration in range(3):
        buffer.add(iteration, make_rollouts(5, 2, seed=iteration), make_traces(5))
    sample = buffer.sample(6, 0.4, seed=1)  # 4 old groups beside 6 fresh ones
    assert sample is not None
    assert sample.rollouts.num_rows == 4 * 2
    assert set(sample.rollouts["problem_id"].to_pylist()) == set(sample.traces["problem_id"].to_pylist())
    again, other = buffer.sample(6, 0.4, seed=1), buffer.sample(6, 0.4, seed=2)
    assert sample.rollouts.equals(again.rollouts)
    assert not sample.rollouts.equals(other.rollouts)


def test_nothing_to_replay_is_none() -> None:
    assert ReplayBuffer(2).sample(4, 0.5, seed=0) is None
    buffer = ReplayBuffer(0)
    buffer.add(0, make_rollouts(2, 2), make_traces(2))
    assert buffer.sample(4, 0.5, seed=0) is None


def test_a_saved_buffer_loads_equal(tmp_path: Path) -> None:
    buffer, loaded = ReplayBuffer(2), ReplayBuffer(2)
    for iteration in (8, 9):
        buffer.add(iteration, make_rollouts(3, 2, seed=iteration), make_traces(3))
    buffer.save(tmp_path / "replay")
    loaded.load(tmp_path / "replay")
    mine, theirs = buffer.sample(4, 0.5, seed=3), loaded.sample(4, 0.5, seed=3)
    assert mine.rollouts.schema.equals(theirs.rollouts.schema, check_metadata=True)
    assert mine.rollouts.equals(theirs.rollouts)
    assert mine.traces.equals(theirs.traces)


@pytest.mark.parametrize(("band", "drawn"), [(None, 4), ([0.4, 0.6], 1), ([0.9, 1.0], 0)])
def test_old_rollouts_are_drawn_beside_those_that_the_prm_learns_from(
    band: list[float] | None, drawn: int
) -> None:
    """Half of the batch is old, whatever a row filter has left of the other half."""
    given = [] if band is None else [f"method.accuracy_band={band}"]
    config = load_config(None, ["method=airl_s", "prm.replay_iterations=1", *given])
    prm = PRMLearner(0, config, "policy", "prm")
    prm._replay.add(0, make_rollouts(9, 2), make_traces(9))
    grades = pa.table({"outcome": pa.array([1.0, *[0.0] * 7], pa.float32())})
    sample = prm.draw_replay(1, [make_rollouts(4, 2, seed=1)], [grades])
    assert (0 if sample is None else sample.rollouts.num_rows) == 2 * drawn
