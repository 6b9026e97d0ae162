import pickle

import numpy as np
import torch

from airls_ray.weights import WeightBuffer, pack_weights, unpack_weights

WEIGHTS = {
    "a.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b.weight": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c.bias": torch.tensor(7, dtype=torch.int64),
}


def packed() -> WeightBuffer:
    return pack_weights(WEIGHTS.items(), version=3)


def test_unpacking_gives_back_names_shapes_types_and_values() -> None:
    unpacked = dict(unpack_weights(packed()))
    assert list(unpacked) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert unpacked[name].dtype == tensor.dtype
        assert unpacked[name].shape == tensor.shape
        assert torch.equal(unpacked[name], tensor)


def test_unpacked_weights_are_views_of_the_buffer() -> None:
    buffer = packed()
    start = buffer.data.ctypes.data
    for offset, (_, tensor) in zip(buffer.offsets, unpack_weights(buffer), strict=True):
        assert tensor.data_ptr() == start + offset


def test_every_weight_starts_at_a_64_byte_boundary_of_the_buffer() -> None:
    assert [offset % 64 for offset in packed().offsets] == [0, 0, 0]


def test_a_read_only_buffer_can_be_unpacked() -> None:
    buffer = packed()
    buffer.data.flags.writeable = False
    assert torch.equal(dict(unpack_weights(buffer))["a.weight"], WEIGHTS["a.weight"])


def test_packing_copies_so_that_later_updates_do_not_reach_the_buffer() -> None:
    weight = torch.zeros(4)
    buffer = pack_weights([("w", weight)], version=0)
    weight.fill_(9.0)
    assert torch.equal(dict(unpack_weights(buffer))["w"], torch.zeros(4))


def test_pickling_keeps_the_bytes_out_of_band() -> None:
    buffers: list[pickle.PickleBuffer] = []
    large = pack_weights([("w", torch.zeros(10_000))], version=0)
    data = pickle.dumps(large, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 1000
    assert sum(np.frombuffer(b, np.uint8).nbytes for b in buffers) == large.nbytes
