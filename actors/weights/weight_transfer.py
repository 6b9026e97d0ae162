"""Our back end of vLLM's weight-transfer protocol: weights from Ray's object store.

The learner puts one buffer once and all workers of a node read it in place; a worker that joins late
needs nothing but the last reference. Between GPUs there is vLLM's own NCCL back end (nccl_transfer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from airls_ray.weights import WeightBuffer, unpack_weights

BACKEND = "object_store"


@dataclass
class ObjectStoreInitInfo(WeightTransferInitInfo):
    """Nothing to agree on: the buffer describes itself."""


@dataclass
class ObjectStoreUpdateInfo(WeightTransferUpdateInfo):
    """The buffer, mapped read-only from the object store."""

    weights: WeightBuffer


class ObjectStoreTransferEngine(WeightTransferEngine[ObjectStoreInitInfo, ObjectStoreUpdateInfo]):
    """Loads a `WeightBuffer` through vLLM's layer-wise reload (which also repacks kernels' weights)."""

    init_info_cls = ObjectStoreInitInfo
    update_info_cls = ObjectStoreUpdateInfo

    def init_transfer_engine(self, init_info: ObjectStoreInitInfo) -> None:
        """Nothing to open."""

    def start_weight_update(self) -> None:
        """Prepare every layer to be loaded anew."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        if not torch.accelerator.is_available():
            forget_expert_kernels(self.model)
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base class, without its device synchronisation where there is no device."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: ObjectStoreUpdateInfo) -> None:
        """Load all weights of the buffer; the views are read once, by the layers' own loaders."""
        self.model.load_weights(unpack_weights(update_info.weights))

    def finish_weight_update(self) -> None:
        """Repack the layers, a tied output layer included."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        repack_tied_output(self.model)

    def shutdown(self) -> None:
        """Nothing to close."""


def repack_tied_output(model: torch.nn.Module) -> None:
    """Renew the packed copy of a tied output layer.

    On CPU vLLM multiplies by a packed copy made at load time; for a tied layer the layer-wise reload
    leaves that copy as it was, and the engine silently samples with old output weights.
    """
    head = getattr(model, "lm_head", None)
    if head is not None and getattr(model.config, "tie_word_embeddings", False):
        head.quant_method.process_weights_after_loading(head)


def forget_expert_kernels(model: torch.nn.Module) -> None:
    """Let a reload make the kernels of mixtures of experts anew.

    On CPU vLLM packs their weights where it makes the kernel; a reload that finds one leaves new weights
    unpacked, and the engine silently samples with nonsense. (On a GPU it renews them in place.)
    """
    for layer in model.modules():
        method: Any = getattr(layer, "quant_method", None)
        if hasattr(method, "moe_kernel"):
            method.moe_kernel = None


def register_object_store_transfer() -> None:
    """Make the back end known to vLLM in this process (idempotent)."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, ObjectStoreTransferEngine)
