"""The one adapter of a vLLM engine, which every request carries, and how a newer one takes its place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airls_ray.adapter_sync import ADAPTER_SETTINGS, ADAPTER_WEIGHTS, engine_rank
from airls_ray.weights import WeightBuffer, unpack_weights

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.lora.request import LoRARequest

_MEMORY = Path("/dev/shm")
"""A folder in memory, where the system has one."""


def adapter_arguments(rank: int) -> dict[str, Any]:
    """Arguments of an engine that takes an adapter of `rank`; none for 0."""
    if not rank:
        return {}
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": engine_rank(rank)}


class AdapterSlot:
    """The adapter that an engine samples with.

    vLLM reads adapters from folders, so one is written for as long as the call takes. Each has a new number,
    and not its version's: vLLM does not read a number again that it knows, and a version comes twice when
    learners are rebuilt.
    """

    def __init__(self, llm: LLM) -> None:
        """The engine has none yet: it samples by the weights that it loaded."""
        self._llm = llm
        self._number = 0
        self.request: LoRARequest | None = None
        """What a request must carry."""

    def take(self, weights: WeightBuffer) -> None:
        """Let the engine sample with these; where vLLM refuses them, it keeps what it has.

        Raises:
            ValueError: vLLM refuses them.
        """
        from vllm.lora.request import LoRARequest

        self._number += 1
        memory = _MEMORY if _MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="adapter-", dir=memory) as name:
            write_adapter(weights, Path(name))
            request = LoRARequest(f"adapter-{self._number}", self._number, name)
            self._llm.llm_engine.add_lora(request)  # which makes room by dropping the one before
        self.request = request


def write_adapter(weights: WeightBuffer, folder: Path) -> None:
    """Write an adapter's weights and settings in peft's format."""
    from safetensors.torch import save_file

    save_file(dict(unpack_weights(weights)), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_SETTINGS).write_text(weights.adapter, encoding="utf-8")
