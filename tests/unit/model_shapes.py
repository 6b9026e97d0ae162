"""Small models of every architecture that is planned for, and what is known of their sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from airls_ray.planning.shapes import PUBLISHED, ModelShape, parse_shape

SMALL: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
ARCHITECTURES = [
    pytest.param(Qwen2Config, {}, id="qwen2"),
    pytest.param(Qwen3Config, {"head_dim": 8}, id="qwen3"),
    pytest.param(Qwen3Config, {"head_dim": 8, "attention_bias": True}, id="qwen3 with bias"),
    pytest.param(LlamaConfig, {}, id="llama"),
    pytest.param(LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 10}, id="llama, bias"),
    pytest.param(MistralConfig, {}, id="mistral"),
]
TINY = ModelShape(
    hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocab=10, tied=False, context=64
)
SEVEN_B = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]


def shape_of(config: PreTrainedConfig) -> ModelShape:
    return parse_shape(json.loads(config.to_json_string(use_diff=False)), "here")


def numel(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
