"""An iteration on paper: sums by hand, and splits against all there are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from airls_ray.planning.costs import Hardware, decode_seconds
from airls_ray.planning.iteration_times import GPUs, IterationSizes, IterationTimes, iteration_times, splits
from airls_ray.planning.lengths import ResponseLengths
from airls_ray.planning.shapes import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as for `python benchmarks/NAME.py`

import gpu_times  # noqa: E402

QWEN = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
EVEN = ResponseLengths.of_quantiles(1500, 1500, 0.9, 4096)
SIZES = IterationSizes(problems=64, rollouts_per_problem=8, prompt=500, lengths=EVEN)
TIMES = IterationTimes(
    work=30, longest=50, prefill=1, log_probs=8, prm_update=20, prm_score=4, policy_update=10, sync=2,
    sync_store=(1, 9), recomputed=6,
)  # fmt: skip


def test_learning_by_hand() -> None:
    found = iteration_times(QWEN, Hardware(), SIZES, GPUs(rollout=16, policy=8, prm=32))
    token = 2 * 7_070_615_552 + 2 * 28 * 3584 * 2000
    tokens = 512 * 2000
    assert found.policy_update == pytest.approx(4 * tokens * token / (8 * 989e12 * 0.4))
    # Rollouts, a trace for each of 64 problems, and as much again of replay.
    assert found.prm_update == pytest.approx(4 * 2 * (512 + 64) * 2000 * token / (32 * 989e12 * 0.4))
    assert found.prm_score == pytest.approx(tokens * token / (32 * 989e12 * 0.5))
    assert found.recomputed == pytest.approx(tokens * token / (8 * 989e12 * 0.5))
    assert found.log_probs - found.recomputed == pytest.approx(64 * 2000 * token / (8 * 989e12 * 0.5))


def test_workers_with_equal_shares_of_equal_lengths_take_as_long() -> None:
    found = iteration_times(QWEN, Hardware(), SIZES, GPUs(16, 8, 8))
    decoding = decode_seconds(QWEN, Hardware(), [1500] * 32, prompt=500, max_sequences=SIZES.max_sequences)
    assert found.longest == pytest.approx(found.work)
    assert found.work - found.prefill == pytest.approx(decoding)


def test_a_tail_makes_the_longest_worker_longer_than_the_mean() -> None:
    heavy = replace(SIZES, lengths=ResponseLengths.of_quantiles(1500, 4000, 0.95, 8192))
    found = iteration_times(QWEN, Hardware(), heavy, GPUs(64, 8, 8))
    assert found.longest > 1.3 * found.work


def test_weights_go_to_every_node_of_workers() -> None:
    found = iteration_times(QWEN, Hardware(), SIZES, GPUs(60, 8, 8))
    size = 2 * 7_615_616_512
    assert found.sync == pytest.approx(size / 25e9)
    assert found.sync_store == pytest.approx((4 * size / 12.5e9, 8 * size / 12.5e9))


def test_the_synchronous_loop_takes_the_sum() -> None:
    assert TIMES.synchronous == 50 + (8 - 6) + 20 + 4 + 10 + 2


@pytest.mark.parametrize(("staleness", "seconds"), [(1, (50 + 42) / 2), (2, 42), (5, 42)])
def test_the_asynchronous_loop_takes_the_largest_of_three(staleness: int, seconds: float) -> None:
    assert TIMES.asynchronous(staleness) == pytest.approx(seconds)


def test_no_split_of_the_learners_is_faster() -> None:
    for found in splits(QWEN, Hardware(), SIZES, 32):
        assert found.rollout + found.policy + found.prm == 256
        rest = (found.policy + found.prm) // 8
        learning = [
            iteration_times(QWEN, Hardware(), SIZES, GPUs(8, 8 * policy, 8 * (rest - policy))).learning
            for policy in range(1, rest)
        ]
        chosen = iteration_times(QWEN, Hardware(), SIZES, GPUs(8, found.policy, found.prm)).learning
        assert chosen <= 1.03 * min(learning)


@pytest.mark.parametrize(("gpus", "asynchronous"), [(64, False), (256, True), (1024, True)])
def test_the_page_has_the_table_of_the_command(gpus: int, asynchronous: bool) -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert (gpu_times.common.RESULTS / "gpu_times.md").read_text(encoding="utf-8") in page
    assert f"| {' | '.join(gpu_times.best(gpus, 512, 16, asynchronous).cells())} |\n" in page
