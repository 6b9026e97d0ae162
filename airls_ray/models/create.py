"""A new policy from scratch: a small Qwen3 for a built-in task."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from airls_ray.config.schema import ModelConfig
from airls_ray.errors import ModelError
from airls_ray.models.load import quiet_transformers


class TokenIds(Protocol):
    """What a new model must know of its tokenizer (`airls_ray.text.codec.TextCodec` has it)."""

    eos_id: int
    pad_id: int
    vocab_size: int


def qwen3_config(config: ModelConfig, codec: TokenIds) -> Qwen3Config:
    """Return the architecture that `config` describes, with the tokenizer's size and special ids."""
    return Qwen3Config(
        vocab_size=codec.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.context_tokens,
        tie_word_embeddings=config.tie_embeddings,
        eos_token_id=codec.eos_id,
        pad_token_id=codec.pad_id,
        bos_token_id=None,
        dtype=config.dtype,
    )


def create_policy(config: ModelConfig, codec: TokenIds, folder: Path, seed: int) -> None:
    """Make a Qwen3 with random weights and save it in `folder`, beside its tokenizer.

    The tokenizer must have been written to `folder` before (`airls_ray.text.codec.build_tokenizer`). The
    weights depend on `seed` and the sizes only; PyTorch's global random state is left as it was.

    Raises:
        ModelError: `folder` holds no tokenizer.
    """
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError(f"{folder} holds no tokenizer: write it first (build_tokenizer), then the model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(qwen3_config(config, codec)).to(getattr(torch, config.dtype))
    model.generation_config = GenerationConfig(eos_token_id=codec.eos_id, pad_token_id=codec.pad_id)
    with quiet_transformers():
        model.save_pretrained(folder)
