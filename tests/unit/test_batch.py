"""A micro-batch equals what a naive loop over Python lists builds."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch

from airls_ray.tensors.batch import TokenBatch, make_batch
from airls_ray.tensors.packing import PackedColumn, to_packed
from airls_ray.tensors.segments import ranges, segment_mean, segment_sum

INTS = pa.list_(pa.int32())
PAD = 99
Lists = list[list[int]]


def random_table(seed: int) -> tuple[Lists, Lists, Lists]:
    rng = np.random.default_rng(seed)
    prompts, responses, ends = [], [], []
    for _ in range(int(rng.integers(1, 9))):
        prompts.append(rng.integers(0, 90, rng.integers(1, 6)).tolist())
        length = int(rng.integers(1, 12))
        responses.append(rng.integers(0, 90, length).tolist())
        inner = rng.choice(np.arange(1, length), rng.integers(0, length), replace=False)
        ends.append([*sorted(inner.tolist()), length])
    return prompts, responses, ends


def packed(*columns: Lists) -> list[PackedColumn]:
    return [to_packed(pa.array(column, INTS)) for column in columns]


def naive(prompts: Lists, responses: Lists, ends: Lists, rows: list[int], layout: str) -> dict[str, list]:
    """The same batch from Python loops, row by row and token by token."""
    width = max(len(prompts[r]) + len(responses[r]) for r in rows)
    lines: dict[str, list] = {"input_ids": [], "position_ids": [], "attention_mask": []}
    flat: dict[str, list] = {k: [] for k in ("predict_index", "token_index", "targets", "step_index")}
    row_offsets, step_rows, step_last, start = [0], [], [], 0
    for b, r in enumerate(rows):
        tokens = prompts[r] + responses[r]
        for j, token in enumerate(responses[r]):
            position = start + len(prompts[r]) + j
            flat["predict_index"].append(position - 1)
            flat["token_index"].append(position)
            flat["targets"].append(token)
            flat["step_index"].append(len(step_rows) + sum(end <= j for end in ends[r]))
        for end in ends[r]:
            step_rows.append(b)
            step_last.append(row_offsets[-1] + end - 1)
        row_offsets.append(row_offsets[-1] + len(responses[r]))
        padding = width - len(tokens) if layout == "padded" else 0
        lines["input_ids"].append(tokens + [PAD] * padding)
        lines["position_ids"].append(list(range(len(tokens) + padding)))
        lines["attention_mask"].append([1] * len(tokens) + [0] * padding)
        start += len(tokens) + padding
    if layout == "packed":
        lines = {key: [list(chain(*value))] for key, value in lines.items()}
        del lines["attention_mask"]
    return {**lines, **flat, "row_offsets": row_offsets, "step_rows": step_rows, "step_last": step_last}


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_batch_equals_the_naive_construction(layout: str) -> None:
    for seed in range(60):
        table = random_table(seed)
        rng = np.random.default_rng(1000 + seed)
        rows = rng.permutation(len(table[0]))[: rng.integers(1, len(table[0]) + 1)].tolist()
        batch = make_batch(*packed(*table), torch.tensor(rows), layout, PAD)
        for name, value in naive(*table, rows, layout).items():
            got = getattr(batch, name)
            assert got.tolist() == value, (seed, name)
            assert got.dtype == torch.int64
        assert (batch.attention_mask is None) == (layout == "packed")


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_token_index_reads_the_response_and_predict_index_the_token_before(layout: str) -> None:
    columns = packed([[10, 11], [20]], [[12, 13], [21]], [[1, 2], [1]])
    batch = make_batch(*columns, torch.tensor([0, 1]), layout, PAD)
    flat = batch.input_ids.flatten()
    assert flat[batch.token_index].tolist() == [12, 13, 21]
    assert flat[batch.predict_index].tolist() == [11, 12, 20]


def test_steps_have_first_and_last_tokens() -> None:
    columns = packed([[1], [1]], [[5, 6, 7], [8]], [[2, 3], [1]])
    batch = make_batch(*columns, torch.tensor([0, 1]), "padded", PAD)
    assert batch.steps == 3
    assert batch.step_first.tolist() == [0, 2, 3]
    assert batch.step_last.tolist() == [1, 2, 3]
    assert batch.token_rows.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_no_rows_give_one_padding_token_and_no_response(layout: str) -> None:
    columns = packed([[1]], [[2]], [[1]])
    batch = make_batch(*columns, torch.tensor([], dtype=torch.int64), layout, PAD)
    assert batch.input_ids.tolist() == [[PAD]]
    assert batch.position_ids.tolist() == [[0]]
    assert batch.attention_mask is None or batch.attention_mask.tolist() == [[1]]
    assert batch.targets.numel() == batch.predict_index.numel() == batch.steps == 0
    assert batch.step_first.tolist() == []
    assert batch.row_offsets.tolist() == [0]


def test_a_response_without_tokens_has_no_steps() -> None:
    columns = packed([[1], [2], [3]], [[4], [], [5, 6]], [[1], [], [2]])
    batch = make_batch(*columns, torch.tensor([0, 1, 2]), "packed", PAD)
    assert batch.row_offsets.tolist() == [0, 1, 1, 3]
    assert batch.step_rows.tolist() == [0, 2]
    assert batch.input_ids.tolist() == [[1, 4, 2, 3, 5, 6]]


def test_model_inputs_leave_out_the_mask_only_when_packed() -> None:
    columns = packed([[1]], [[2]], [[1]])
    names = {"input_ids", "position_ids", "predict_index", "token_index", "targets"}
    rows = torch.tensor([0])
    assert set(make_batch(*columns, rows, "packed", PAD).model_inputs()) == names
    assert set(make_batch(*columns, rows, "padded", PAD).model_inputs()) == names | {"attention_mask"}


def test_moving_keeps_every_field() -> None:
    batch = make_batch(*packed([[1]], [[2]], [[1]]), torch.tensor([0]), "packed", PAD)
    moved = batch.to("meta")
    assert isinstance(moved, TokenBatch)
    assert moved.targets.device.type == "meta"
    assert moved.attention_mask is None


def test_an_empty_prompt_is_an_error_that_names_the_row() -> None:
    columns = packed([[1], []], [[2], [3]], [[1], [1]])
    with pytest.raises(ValueError, match="row 1 has an empty prompt"):
        make_batch(*columns, torch.tensor([0, 1]), "padded", PAD)


@pytest.mark.parametrize("ends", [[[1, 2], [1]], [[1, 3], []], [[1, 3], [2]], [[1, 4], [1]]])
def test_step_ends_that_miss_the_end_of_a_response_are_an_error(ends: Lists) -> None:
    columns = packed([[1], [1]], [[2, 2, 2], [3]], ends)
    with pytest.raises(ValueError, match="step ends of row"):
        make_batch(*columns, torch.tensor([0, 1]), "padded", PAD)


@pytest.mark.parametrize("ends", [[0, 3], [2, 2, 3], [2, 1, 3]])
def test_an_empty_step_is_an_error(ends: list[int]) -> None:
    columns = packed([[1]], [[2, 2, 2]], [ends])
    with pytest.raises(ValueError, match="every step needs a token"):
        make_batch(*columns, torch.tensor([0]), "padded", PAD)


def test_ranges_are_concatenated() -> None:
    assert ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


def test_segments_are_summed_and_averaged_and_carry_gradients() -> None:
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    index = torch.tensor([0, 2, 2])
    assert segment_sum(values, index, 3).tolist() == [1.0, 0.0, 6.0]
    mean = segment_mean(values, index, 3)
    assert mean.tolist() == [1.0, 0.0, 3.0]
    mean[2].backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.5, 0.5]
