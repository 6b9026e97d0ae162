"""Arrow list columns become tensors in place, and come back."""

import gc
import warnings
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from airls_ray.tensors.packing import PackedColumn, to_list_column, to_packed

INTS = pa.list_(pa.int32())


def buffer_address(array: pa.ListArray, first_value: int) -> int:
    """Address of value `first_value` in the values buffer, from Arrow's own buffers."""
    return array.values.buffers()[1].address + 4 * (array.values.offset + first_value)


def as_lists(packed: PackedColumn) -> list[list[float]]:
    bounds = packed.offsets.tolist()
    return [packed.values[a:b].tolist() for a, b in pairwise(bounds)]


def test_tokens_of_one_chunk_are_not_copied() -> None:
    array = pa.array([[1, 2, 3], [], [4, 5]], INTS)
    assert to_packed(array).values.data_ptr() == buffer_address(array, 0)
    assert to_packed(pa.chunked_array([array])).values.data_ptr() == buffer_address(array, 0)


def test_a_table_column_is_not_copied() -> None:
    table = pa.table({"response": pa.array([[7, 8], [9]], INTS)})
    array = table["response"].chunk(0)
    assert to_packed(table["response"]).values.data_ptr() == buffer_address(array, 0)


def test_a_slice_points_into_the_middle_of_the_buffer() -> None:
    table = pa.table({"response": pa.array([[1, 2, 3], [4], [5, 6], [7]], INTS)})
    packed = to_packed(table.slice(1, 2)["response"])
    assert as_lists(packed) == [[4], [5, 6]]
    assert packed.offsets.tolist() == [0, 1, 3]
    assert packed.values.data_ptr() == buffer_address(table["response"].chunk(0), 3)


def test_values_that_are_sliced_themselves_are_read_from_their_offset() -> None:
    values = pa.array(range(10), pa.int32()).slice(4)
    array = pa.ListArray.from_arrays(pa.array([0, 2, 5], pa.int32()), values)
    packed = to_packed(array.slice(1))
    assert as_lists(packed) == [[6, 7, 8]]
    assert packed.values.data_ptr() == buffer_address(array, 2)


def test_read_only_memory_gives_no_warning() -> None:
    original = pa.array([[1, 2], [3]], INTS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("a", INTS)])) as writer:
        writer.write_table(pa.table({"a": original}))
    table = pa.ipc.open_stream(pa.py_buffer(sink.getvalue().to_pybytes())).read_all()
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # otherwise torch warns once per process, perhaps in an earlier test
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            packed = to_packed(table["a"])
    finally:
        torch.set_warn_always(before)
    assert as_lists(packed) == [[1, 2], [3]]


def test_the_buffer_lives_as_long_as_the_tensor() -> None:
    packed = to_packed(pa.array([list(range(50_000))], INTS))
    gc.collect()
    filler = [np.full(50_000, -1, np.int32) for _ in range(20)]
    assert torch.equal(packed.values, torch.arange(50_000, dtype=torch.int32))
    del filler


def test_several_chunks_are_combined() -> None:
    column = pa.chunked_array([pa.array([[1], [2, 3]], INTS), pa.array([[4]], INTS).slice(0)])
    assert as_lists(to_packed(column)) == [[1], [2, 3], [4]]


def test_no_rows_and_empty_rows_are_fine() -> None:
    assert as_lists(to_packed(pa.chunked_array([], INTS))) == []
    assert as_lists(to_packed(pa.array([[], []], INTS))) == [[], []]
    assert as_lists(to_packed(pa.array([[1], []], INTS).slice(2))) == []
    assert to_packed(pa.array([], pa.list_(pa.float32()))).values.dtype == torch.float32


def test_booleans_and_large_lists_are_read() -> None:
    assert as_lists(to_packed(pa.array([[True], [False, True]], pa.list_(pa.bool_())).slice(1))) == [[0, 1]]
    assert as_lists(to_packed(pa.array([[1.5], [2.5]], pa.large_list(pa.float32())))) == [[1.5], [2.5]]


def test_a_null_row_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="row 1 of the list column is null"):
        to_packed(pa.array([[1], None, [2]], INTS))


def test_a_null_row_outside_the_slice_is_no_error() -> None:
    assert as_lists(to_packed(pa.array([None, [1]], INTS).slice(1))) == [[1]]


def test_a_null_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 null values"):
        to_packed(pa.array([[1, None]], INTS))


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.array([["a"]])])
def test_other_types_are_an_error(column: pa.Array) -> None:
    with pytest.raises(TypeError):
        to_packed(column)


def test_taking_rows_keeps_their_order_and_repeats() -> None:
    packed = to_packed(pa.array([[1, 2], [], [3]], INTS))
    assert as_lists(packed.take(torch.tensor([2, 0, 1, 2]))) == [[3], [1, 2], [], [3]]
    assert packed.positions(torch.tensor([2, 0])).tolist() == [2, 0, 1]
    assert as_lists(packed.take(torch.tensor([], dtype=torch.int64))) == []


def test_the_way_back_gives_the_same_lists_without_a_copy() -> None:
    values, offsets = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 2, 3])
    column = to_list_column(values, offsets, pa.list_(pa.float32()))
    assert column.to_pylist() == [[1.0, 2.0], [], [3.0]]
    assert column.type == pa.list_(pa.float32())
    assert buffer_address(column, 0) == values.data_ptr()


def test_the_way_back_casts_and_detaches() -> None:
    values = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert to_list_column(values, torch.tensor([0, 2]), pa.list_(pa.float32())).to_pylist() == [[1.0, 2.0]]
    assert to_list_column(torch.tensor([5]), torch.tensor([0, 1]), INTS).type == INTS


def test_offsets_that_do_not_span_the_values_are_an_error() -> None:
    for offsets in ([0, 1], [1, 2], [0, 2, 1, 2]):
        with pytest.raises(ValueError, match="offsets must rise"):
            to_list_column(torch.tensor([1, 2]), torch.tensor(offsets), INTS)
    with pytest.raises(TypeError, match="list type"):
        to_list_column(torch.tensor([1, 2]), torch.tensor([0, 2]), pa.int32())
