"""All weights of a model in one buffer: one object in the store, read in place by every reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the driver passes buffers on and never opens one: it needs no torch
    import torch

_ALIGNMENT = 64  # bytes; the widest vector load, so that views may be used in kernels directly


@dataclass(frozen=True)
class WeightBuffer:
    """Weights under their Hugging Face names, laid out one after the other in `data`.

    `offsets` are byte positions in `data` (uint8, one dimension); `dtypes` are names such as
    "float32". Pickle protocol 5 keeps `data` out of band: Ray maps it instead of copying it.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    data: np.ndarray
    version: int
    adapter: str = ""
    """Settings in peft's format where these are the weights of an adapter alone; else empty."""

    @property
    def nbytes(self) -> int:
        """Size in bytes, alignment included."""
        return int(self.data.nbytes)


def pack_weights(
    weights: Iterable[tuple[str, torch.Tensor]], version: int, adapter: str = ""
) -> WeightBuffer:
    """Copy the weights into one new buffer: the only copy that a sync makes on the learner's side.

    `adapter`: the settings, where they are those of an adapter.
    """
    import torch

    names, tensors, offsets, size = [], [], [], 0
    for name, tensor in weights:
        names.append(name)
        tensors.append(tensor.detach())
        offsets.append(size)
        size += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
    buffer = torch.empty(size, dtype=torch.uint8)
    for tensor, offset in zip(tensors, offsets, strict=True):
        nbytes = tensor.numel() * tensor.element_size()
        view = buffer[offset : offset + nbytes].view(tensor.dtype).view(tensor.shape)
        view.copy_(tensor)
    return WeightBuffer(
        names=tuple(names),
        dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
        shapes=tuple(tuple(tensor.shape) for tensor in tensors),
        offsets=tuple(offsets),
        data=buffer.numpy(),
        version=version,
        adapter=adapter,
    )


def unpack_weights(buffer: WeightBuffer) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every weight as a view into the buffer.

    The buffer may lie in read-only shared memory: the views must be copied, never written.
    """
    import torch

    for name, dtype_name, shape, offset in zip(
        buffer.names, buffer.dtypes, buffer.shapes, buffer.offsets, strict=True
    ):
        dtype = getattr(torch, dtype_name)
        count = int(np.prod(shape, dtype=np.int64))
        yield (
            name,
            torch.frombuffer(_writable_view(buffer.data), dtype=dtype, count=count, offset=offset).view(
                shape
            ),
        )


def _writable_view(data: np.ndarray) -> memoryview | np.ndarray:
    """Hide the read-only flag, which torch would warn about for every tensor; nobody writes here."""
    if data.flags.writeable:
        return data
    import ctypes

    return (ctypes.c_char * data.nbytes).from_address(data.ctypes.data)  # type: ignore[return-value]
