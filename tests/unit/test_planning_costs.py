"""Seconds on paper: by hand, and against loops that count every product and every token."""

from __future__ import annotations

import numpy as np
import pytest

from airls_ray.planning.costs import (
    Hardware,
    broadcast_seconds,
    decode_seconds,
    decode_step_seconds,
    forward_flops,
    forward_seconds,
    matrix_parameters,
    prefill_seconds,
    update_flops,
    update_seconds,
    weight_bytes,
)
from airls_ray.planning.shapes import PUBLISHED, ModelShape

QWEN = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
SMALL = ModelShape(
    hidden=24, layers=3, heads=4, kv_heads=2, head_dim=8, intermediate=40, vocab=50, tied=False
)
SLOW = Hardware(
    flops=1e6, memory_bandwidth=1e5, decoding_share=0.5, forward_share=0.25, training_share=0.2,
    step_seconds=0.125,
)  # fmt: skip


def test_the_matrices_of_qwen_are_its_published_parameters_without_embedding_and_last_norm() -> None:
    assert matrix_parameters(QWEN) == 7_615_616_512 - 152_064 * 3584 - 3584


@pytest.mark.parametrize("length", [40, 400])
def test_forward_flops_are_those_of_every_product(length: int) -> None:
    h, q, kv, f = 24, 4 * 8, 2 * 8, 40
    total = 0
    for position in range(length):
        products = [(h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h)]
        layer = sum(2 * rows * columns for rows, columns in products)
        layer += 2 * (2 * (position + 1) * q)  # scores and weighted values, of what was before
        total += 3 * layer + 2 * h * 50
    # Beside these the formula has two norms a layer among the parameters, and L for the mean (L + 1).
    assert forward_flops(SMALL, length, length) == pytest.approx(total, rel=2 / length)


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 3), (True, 4)])
def test_an_update_is_three_passes_and_one_more_with_checkpointing(checkpointing: bool, passes: int) -> None:
    # By hand for 7B, 1e6 tokens in sequences of 5,000: 2 N + 2 * 28 layers * 3584 * 5,000 a token.
    token = 2 * 7_070_615_552 + 2 * 28 * 3584 * 5000
    assert update_flops(QWEN, 1e6, 5000, checkpointing) == pytest.approx(passes * token * 1e6, rel=1e-12)


def test_seconds_of_learning_by_hand() -> None:
    token = 2 * 7_070_615_552 + 2 * 28 * 3584 * 5000
    assert update_seconds(QWEN, Hardware(), 16, 1e7, 5000) == pytest.approx(
        4 * token * 1e7 / (16 * 989e12 * 0.4)
    )
    assert forward_seconds(QWEN, Hardware(), 16, 1e7, 5000) == pytest.approx(
        token * 1e7 / (16 * 989e12 * 0.5)
    )
    prompts = 8 * 500 * (2 * 7_070_615_552 + 2 * 28 * 3584 * 500)
    assert prefill_seconds(QWEN, Hardware(), 8, 500) == pytest.approx(prompts / (989e12 * 0.5))


def test_a_step_of_few_sequences_reads_the_weights_and_the_cache() -> None:
    # 2 bytes a weight; of a token keys and values of 28 layers, 4 heads of 128, 2 bytes each.
    read = 2 * 7_070_615_552 + 100_000 * 2 * 28 * 4 * 128 * 2
    assert decode_step_seconds(QWEN, Hardware(), 8, 100_000) == pytest.approx(read / (3.35e12 * 0.7) + 1e-3)


def test_a_step_of_many_sequences_computes() -> None:
    computed = 2 * 7_070_615_552 * 2000
    assert decode_step_seconds(QWEN, Hardware(), 2000, 1000) == pytest.approx(
        computed / (989e12 * 0.7) + 1e-3
    )


def token_by_token(lengths: list[int], prompt: int, most: int, hardware: Hardware) -> float:
    """Every step with the sequences that are there, each with what it has so far."""
    waiting, running, seconds = list(lengths), [], 0.0
    while waiting or running:
        while waiting and len(running) < most:
            running.append([waiting.pop(0), 0])
        cached = sum(prompt + done + 1 for _, done in running)
        seconds += decode_step_seconds(SMALL, hardware, len(running), cached)
        running = [[length, done + 1] for length, done in running if done + 1 < length]
    return seconds


@pytest.mark.parametrize("most", [1, 7, 64, 1000])
@pytest.mark.parametrize("flops", [1e6, 1e12])
def test_decoding_is_the_sum_of_its_steps(most: int, flops: float) -> None:
    hardware = Hardware(flops=flops, memory_bandwidth=1e5, step_seconds=0.125)
    lengths = np.random.default_rng(most).integers(1, 400, 150).tolist()
    found = decode_seconds(SMALL, hardware, lengths, prompt=30, max_sequences=most)
    by_hand = token_by_token(lengths, 30, most, hardware)
    # Where reading and computing cross between two ends, the step in the middle stands for both.
    assert found == pytest.approx(by_hand, rel=1e-9 if flops > 1e9 else 2e-3)


def test_nothing_takes_no_time() -> None:
    assert decode_seconds(SMALL, SLOW, [], prompt=3, max_sequences=4) == 0.0


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 7, 8, 127, 128])
def test_a_broadcast_doubles_at_best(nodes: int) -> None:
    have, rounds = 1, 0
    while have < nodes + 1:
        have, rounds = 2 * have, rounds + 1
    assert broadcast_seconds(10.0, nodes, 2.0) == (5.0 * rounds, 5.0 * nodes)


def test_a_sync_moves_two_bytes_for_every_parameter() -> None:
    assert weight_bytes(QWEN) == 2 * 7_615_616_512
