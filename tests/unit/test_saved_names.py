"""Weights that are sent to the engines have the names of the model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, Qwen3Config, Qwen3MoeConfig

from airls_ray.models.saved_names import as_saved

SIZES: dict[str, Any] = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
CONFIGS = {
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=3),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=8
    ),
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_have_names_and_values_of_the_folder(kind: str, loaded: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    model.save_pretrained(tmp_path)
    if loaded:
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
    sent = dict(as_saved(model, model.named_parameters()))
    saved = load_file(tmp_path / "model.safetensors")
    assert sent.keys() == saved.keys()
    assert all(sent[name].equal(value) for name, value in saved.items())


def test_weights_of_a_dense_model_are_passed_on_without_a_copy() -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS["qwen3"])
    given = list(model.named_parameters())
    assert all(a is b for (_, a), (_, b) in zip(as_saved(model, given), given, strict=True))
