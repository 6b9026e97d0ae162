"""What a learner leaves in a folder: its model, and the adapter that the model was merged from."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from airls_ray.adapter_sync import ADAPTER_FOLDER
from airls_ray.learning.engine import TrainEngine
from airls_ray.models.load import save_hf
from airls_ray.models.lora import save_adapter


def save_trained(engine: TrainEngine, tokenizer: Path | str, folder: Path) -> None:
    """Save the engine's weights in Hugging Face format (adapters merged), and its adapter in `adapter/`.

    Collective: every rank takes part in the gathering, rank 0 writes.

    Args:
        engine: this rank's.
        tokenizer: folder to copy the tokenizer from.
        folder: made if it does not exist.
    """
    weights, adapter = engine.named_weights(), engine.adapter_weights()
    if engine.rank:
        for _ in chain(weights, adapter):  # but keeps nothing
            pass
        return
    save_hf(engine.module, dict(weights), tokenizer, folder)
    trained = dict(adapter)
    if trained:
        save_adapter(engine.module, trained, folder / ADAPTER_FOLDER)
