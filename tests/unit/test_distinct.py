from dataclasses import replace

import torch

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.learning.batches import Sequences
from airls_ray.prm.batch import PRMBatch
from airls_ray.prm.distinct import merge_equal_sequences
from airls_ray.tensors import PackedColumn


def column(rows: list[list[float]], dtype: torch.dtype = torch.int32) -> PackedColumn:
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    return PackedColumn(torch.tensor([v for row in rows for v in row], dtype=dtype), lengths.cumsum(0))


def batch(
    responses: list[list[float]],
    is_expert: list[bool],
    weights: list[list[float]],
    ends: list[list[float]] | None = None,
) -> PRMBatch:
    ends = ends or [[2, len(response)] for response in responses]
    return PRMBatch(
        sequences=Sequences(column([[9.0]] * len(responses)), column(responses), column(ends)),
        is_expert=torch.tensor(is_expert),
        problem=torch.zeros(len(responses), dtype=torch.int64),
        logprobs=column([[-1.0] * len(response) for response in responses], torch.float32),
        weights=column(weights, torch.float32),
    )


A, B = [1.0, 2, 3, 4], [1.0, 2, 5, 6]


def test_equal_sequences_are_computed_once_and_each_side_keeps_its_weight() -> None:
    merged = merge_equal_sequences(
        batch([A, B, A, A], [False, False, False, True], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    )
    assert merged.rows.tolist() == [0, 1]
    torch.testing.assert_close(
        merged.policy_weights.values, torch.tensor([0.6, 0.8, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0])
    )
    torch.testing.assert_close(
        merged.expert_weights.values, torch.tensor([0.7, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    )


def test_sequences_without_weight_are_not_computed() -> None:
    merged = merge_equal_sequences(batch([A, B], [False, True], [[0.0, 0.0], [0.5, 0.5]]))
    assert merged.rows.tolist() == [1]


def test_different_sequences_stay_apart() -> None:
    merged = merge_equal_sequences(batch([A, B], [False, True], [[0.5, 0.5], [0.5, 0.5]]))
    assert merged.rows.tolist() == [0, 1]


def test_equal_tokens_in_other_steps_keep_their_weights() -> None:
    """A stored rollout has the steps of its file, and the trace those of the codec."""
    merged = merge_equal_sequences(
        batch(
            [A, A, A],
            [False, False, True],
            [[0.1, 0.2, 0.3], [0.4, 0.5], [0.6, 0.7]],
            [[1, 2, 4], [3, 4], [2, 4]],
        )
    )
    assert merged.rows.tolist() == [0, 1, 2]
    torch.testing.assert_close(
        merged.policy_weights.values, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0])
    )
    torch.testing.assert_close(
        merged.expert_weights.values, torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.7])
    )


def test_equal_rollouts_of_two_policies_keep_their_own_importance_weights() -> None:
    """rePIRL: exp(sum phi) / pi differs where the policies that sampled them gave other probabilities."""
    responses = [A, A, A]
    same = batch(responses, [False] * 3, [[0.1, 0.1]] * 3)
    logprobs = column([[-1.0] * 4, [-1.0] * 4, [-2.0] * 4], torch.float32)
    apart = replace(same, objective=ObjectiveConfig(name="repirl"), logprobs=logprobs)
    assert merge_equal_sequences(same).rows.tolist() == [0]
    assert merge_equal_sequences(apart).rows.tolist() == [0, 2]


def test_equal_traces_are_one_whatever_their_log_probabilities() -> None:
    """Traces have no importance weights, so what sampled them does not matter."""
    same = batch([A, A], [True, True], [[0.1, 0.1]] * 2)
    logprobs = column([[-1.0] * 4, [-2.0] * 4], torch.float32)
    apart = replace(same, objective=ObjectiveConfig(name="repirl"), logprobs=logprobs)
    assert merge_equal_sequences(apart).rows.tolist() == [0]
